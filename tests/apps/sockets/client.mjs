// Uses the application of server.mjs through the proxy: refused without a
// session, and with one named by the application.
//
//   node client.mjs CLIENT URL USER PASSWORD ID
//
// CLIENT is socket.io (long polling, then an upgrade), socket.io-websocket (at
// once) or ws. An https URL is verified against NODE_EXTRA_CA_CERTS. Ends with 1
// and says why if anything is not as it should be.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";

import { io } from "socket.io-client";
import { WebSocket } from "ws";

const [client, base, username, password, id] = process.argv.slice(2);
const LARGE = 512 * 1024;

async function signIn() {
  const response = await fetch(new URL("/auth/login", base), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username, password }),
  });
  assert.equal(response.status, 200);
  const [pair] = response.headers.getSetCookie()[0].split(";");
  return pair;
}

// The first of these events, with what it brings.
function first(emitter, names) {
  return new Promise((resolve) => {
    for (const name of names) emitter.once(name, (...values) => resolve([name, ...values]));
  });
}

async function socketIo(transports) {
  const open = (cookie) =>
    io(base, { transports, forceNew: true, reconnection: false, extraHeaders: cookie === undefined ? {} : { cookie } });
  const nobody = open();
  const [refused, error] = await first(nobody, ["connect", "connect_error"]);
  assert.equal(refused, "connect_error");
  // Polling tells the status, a WebSocket the message of ws.
  assert.match(`${error.description} ${error.description?.message}`, /401/);
  nobody.close();

  const socket = open(await signIn());
  const upgraded = transports[0] === "websocket" ? Promise.resolve() : once(socket.io.engine, "upgrade");
  const [named, told] = await first(socket, ["you", "connect_error"]);
  assert.deepEqual([named, told], ["you", id]);
  await upgraded;
  assert.equal(socket.io.engine.transport.name, "websocket");
  assert.equal(await socket.emitWithAck("say", "hello"), "HELLO");
  const large = randomBytes(LARGE);
  assert.ok(large.equals(await socket.emitWithAck("large", large)));
  socket.close();
}

async function plain() {
  const url = new URL("/echo", base.replace("http", "ws"));
  const nobody = new WebSocket(url);
  const [refused, error] = await first(nobody, ["open", "error"]);
  assert.equal(refused, "error");
  assert.match(error.message, /401/);

  const headers = { cookie: await signIn() };
  // Another site's page, in a browser that holds the cookie.
  const forged = new WebSocket(url, { headers, origin: "https://evil.example" });
  assert.match((await first(forged, ["open", "error"]))[1].message, /403/);

  const socket = new WebSocket(url, ["first", "second"], { headers, origin: new URL(base).origin });
  await once(socket, "open");
  assert.equal(socket.protocol, "first");
  assert.match(socket.extensions, /permessage-deflate/);
  const say = async (data) => {
    const answer = once(socket, "message");
    socket.send(data);
    return (await answer)[0];
  };
  assert.equal((await say("hello")).toString(), `${id}: hello`);
  const large = randomBytes(8 * LARGE);
  assert.ok(large.equals(await say(large)));
  const pong = once(socket, "pong");
  socket.ping("there?");
  assert.equal((await pong)[0].toString(), "there?");
  const closed = once(socket, "close");
  socket.close(1000, "done");
  assert.equal((await closed)[0], 1000);
}

const clients = {
  "socket.io": () => socketIo(["polling", "websocket"]),
  "socket.io-websocket": () => socketIo(["websocket"]),
  ws: plain,
};
await clients[client]();

// Idle connections would keep the process for a while.
process.exit(0);
