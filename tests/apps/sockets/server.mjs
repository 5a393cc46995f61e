// Socket.IO at /socket.io/, and a WebSocket at /echo, for whomever the proxy in
// front names. The page at / uses both, and shows what came of it.
//
// Listens on any free port of 127.0.0.1 and prints `listening PORT`.

import http from "node:http";

import { Server } from "socket.io";
import { WebSocketServer } from "ws";

const script = `
const show = (id, text) => { document.getElementById(id).textContent = text; };
const address = new URL("/echo", location.href);
address.protocol = address.protocol.replace("http", "ws");
const plain = new WebSocket(address, ["first", "second"]);
plain.onopen = () => plain.send("hello");
plain.onmessage = ({ data }) => { show("plain", data + " over " + plain.protocol); plain.close(1000, "done"); };
plain.onerror = () => show("plain", "failed");
plain.onclose = ({ code, reason, wasClean }) => show("closed", [code, reason, wasClean].join(" "));
const socket = io();
socket.on("you", (id) => {
  const tell = () => socket.emit("say", "hello", (back) => show("socket-io", back + " to " + id + " over websocket"));
  if (socket.io.engine.transport.name === "websocket") tell();
  else socket.io.engine.once("upgrade", tell);
});
socket.on("connect_error", (error) => show("socket-io", "failed: " + error.message));
`;

const page = (id) => `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Sockets</title></head>
<body>
<h1>Sockets</h1>
<p>Signed in as <strong id="user-id">${id}</strong></p>
<p>WebSocket: <span id="plain">waiting</span>, closed <span id="closed">not yet</span></p>
<p>Socket.IO: <span id="socket-io">waiting</span></p>
<form method="post" action="/auth/logout"><button type="submit">Sign out</button></form>
<script src="/socket.io/socket.io.js"></script>
<script src="/page.js"></script>
</body>
</html>
`;

const server = http.createServer((request, response) => {
  const send = (type, body) => {
    response.setHeader("content-type", type);
    response.end(body);
  };
  if (request.url === "/page.js") send("text/javascript", script);
  else if (request.url === "/") send("text/html; charset=utf-8", page(request.headers["x-user-id"]));
  else send("text/plain", "fine");
});

const io = new Server(server);
io.on("connection", (socket) => {
  socket.emit("you", socket.handshake.headers["x-user-id"]);
  socket.on("say", (text, answer) => answer(text.toUpperCase()));
  socket.on("large", (bytes, answer) => answer(bytes));
});

// Says everything back, after who the client is.
const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: true });
server.on("upgrade", (request, socket, head) => {
  if (new URL(request.url, "http://localhost").pathname !== "/echo") return;
  sockets.handleUpgrade(request, socket, head, (client) => {
    const id = request.headers["x-user-id"];
    client.on("message", (data, isBinary) => client.send(isBinary ? data : `${id}: ${data}`));
  });
});

server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
