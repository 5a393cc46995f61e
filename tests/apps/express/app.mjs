// A small application without a line of session code: who the visitor is, it
// learns from the identity headers that the proxy in front of it writes.
//
// It listens on the address in HOST (127.0.0.1 by default) and the port in
// PORT (0, any free one, by default) and prints `listening PORT`.

import express from "express";

const app = express();
app.disable("x-powered-by");

const escape = (text) =>
  String(text).replace(
    /[&<>"']/g,
    (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c],
  );

// Header values arrive as Latin-1; identity headers hold UTF-8.
const text = (value) => (value === undefined ? undefined : Buffer.from(value, "latin1").toString("utf8"));

const visitor = (req) => ({
  id: text(req.get("x-user-id")),
  email: text(req.get("x-user-email")),
  roles: (text(req.get("x-user-roles")) ?? "").split(",").filter(Boolean),
});

const page = (title, body) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
${body}
</main>
</body>
</html>
`;

app.get("/", (req, res) => {
  const { id, email, roles } = visitor(req);
  const body =
    id === undefined
      ? `<p>Nobody is signed in.</p>`
      : `<p>Signed in as <strong id="user-id">${escape(id)}</strong></p>
<p>Email: <span id="user-email">${escape(email ?? "none")}</span></p>
<p>Roles: <span id="user-roles">${escape(roles.join(", ") || "none")}</span></p>
<form method="post" action="/auth/logout"><button type="submit">Sign out</button></form>`;
  res.type("html").send(page("Example application", body));
});

app.get("/api/me", (req, res) => {
  res.json(visitor(req));
});

app.get("/public", (req, res) => {
  res.type("html").send(page("Public page", "<p>Everybody may read this.</p>"));
});

app.get("/admin", (req, res) => {
  const { id } = visitor(req);
  res.type("html").send(page("Administration", `<p>Welcome, <strong id="user-id">${escape(id ?? "nobody")}</strong>.</p>`));
});

// Every header field as it arrived: names, order and repeats.
app.all("/headers", (req, res) => {
  const fields = [];
  for (let i = 0; i < req.rawHeaders.length; i += 2) {
    fields.push([req.rawHeaders[i], req.rawHeaders[i + 1]]);
  }
  res.json({ method: req.method, target: req.originalUrl, headers: fields });
});

// The body comes back as it is received, without being held in memory.
app.post("/echo", (req, res) => {
  res.status(200).type(req.get("content-type") ?? "application/octet-stream");
  req.pipe(res);
});

app.get("/stream", async (req, res) => {
  res.type("text/plain");
  for (let i = 1; i <= 5 && !res.destroyed; i += 1) {
    res.write(`chunk ${i}\n`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  res.end();
});

app.get("/healthz", (req, res) => {
  res.type("text/plain").send("ok\n");
});

const server = app.listen(Number(process.env.PORT ?? 0), process.env.HOST ?? "127.0.0.1", (error) => {
  if (error) {
    console.error(error.message);
    process.exit(1);
  }
  console.log(`listening ${server.address().port}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => server.close(() => process.exit(0)));
}
