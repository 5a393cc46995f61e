// An authenticating proxy as one writes it with Express: sessions in Redis, a check,
// and http-proxy-middleware with connections that are kept.
//
//     node server.js REDIS_PORT BACKEND_PORT
//
// POST /login makes a session and sends its cookie.
"use strict";

const http = require("node:http");
const express = require("express");
const session = require("express-session");
const { RedisStore } = require("connect-redis");
const { createProxyMiddleware } = require("http-proxy-middleware");
const { createClient } = require("redis");

async function main() {
  const [redis, backend] = process.argv.slice(2);
  const client = createClient({ socket: { host: "127.0.0.1", port: Number(redis) } });
  await client.connect();

  const app = express();
  app.disable("x-powered-by");
  app.use(
    session({
      store: new RedisStore({ client, prefix: "express:" }),
      secret: "only a measurement",
      resave: false,
      saveUninitialized: false,
    }),
  );
  app.post("/login", (request, response) => {
    request.session.userId = "alice";
    response.sendStatus(204);
  });
  app.use((request, response, next) => {
    if (!request.session.userId) return response.sendStatus(401);
    request.headers["x-user-id"] = request.session.userId;
    next();
  });
  app.use(
    createProxyMiddleware({
      target: `http://127.0.0.1:${backend}`,
      agent: new http.Agent({ keepAlive: true, maxSockets: 512 }),
      xfwd: true,
    }),
  );
  const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
  server.keepAliveTimeout = 75_000;
}

main();
