// Walks through a whole session with one HTTP client: nobody, somebody, nobody.
//
//   node session.mjs CLIENT URL USER PASSWORD ID
//
// CLIENT is axios, fetch (that of Node.js), undici or undici-h2. An https URL is
// verified against NODE_EXTRA_CA_CERTS. Ends with 1 and says why if anything is
// not as it should be.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";

import axios from "axios";
import { Agent, request } from "undici";

const [client, base, username, password, id] = process.argv.slice(2);
const LARGE = 8 * 1024 * 1024;

// Each takes a method, a URL, fields and a body, and gives the status, the
// Set-Cookie fields and the body as bytes. None has a cookie jar of its own.
const clients = {
  axios: () => {
    const agent = (kind) => new kind.Agent({ keepAlive: true, maxSockets: 1 });
    const instance = axios.create({
      httpAgent: agent(http),
      httpsAgent: agent(https),
      proxy: false,
      responseType: "arraybuffer",
      maxRedirects: 0,
      maxBodyLength: Infinity,
      validateStatus: () => true,
    });
    return async (method, url, headers, body) => {
      const { status, headers: fields, data } = await instance.request({ method, url, headers, data: body });
      return { status, cookies: fields["set-cookie"] ?? [], body: Buffer.from(data) };
    };
  },
  fetch: () => async (method, url, headers, body) => {
    const response = await fetch(url, { method, headers, body, redirect: "manual" });
    const content = Buffer.from(await response.arrayBuffer());
    return { status: response.status, cookies: response.headers.getSetCookie(), body: content };
  },
  undici: (options = {}) => {
    const dispatcher = new Agent({ connections: 1, ...options });
    return async (method, url, headers, body) => {
      const response = await request(url, { method, headers, body, dispatcher });
      const content = Buffer.from(await response.body.arrayBuffer());
      const cookies = [response.headers["set-cookie"] ?? []].flat();
      return { status: response.statusCode, cookies, body: content };
    };
  },
  "undici-h2": () => clients.undici({ allowH2: true }),
};

const send = clients[client]();
let cookie;
const ask = async (method, path, body, type) => {
  const headers = {};
  if (cookie !== undefined) headers.cookie = cookie;
  if (type !== undefined) headers["content-type"] = type;
  const response = await send(method, new URL(path, base).href, headers, body);
  for (const text of response.cookies) {
    if (base.startsWith("https:")) assert.match(text, /; Secure/i);
    const [pair] = text.split(";");
    cookie = /; Max-Age=0/i.test(text) ? undefined : pair;
  }
  return response;
};
const json = (response) => JSON.parse(response.body.toString("utf8"));

const anonymous = await ask("GET", "/api/me");
assert.equal(anonymous.status, 401);
assert.equal(json(anonymous).reason, "no_cookie");

const credentials = (secret) => JSON.stringify({ username, password: secret });
const wrong = await ask("POST", "/auth/login", credentials("wrong"), "application/json");
assert.equal(wrong.status, 401);
assert.equal(cookie, undefined);
const login = await ask("POST", "/auth/login", credentials(password), "application/json");
assert.equal(login.status, 200);
assert.equal(json(login).user.id, id);
assert.notEqual(cookie, undefined);
const old = cookie;

for (let i = 0; i < 20; i += 1) {
  const answer = await ask("GET", `/api/me?${i}`);
  assert.equal(answer.status, 200);
  const fields = new Map(json(answer).headers);
  assert.equal(fields.get("x-user-id"), id);
}

const large = randomBytes(LARGE);
const echo = await ask("POST", "/echo", large, "application/octet-stream");
assert.equal(echo.status, 200);
assert.ok(echo.body.equals(large), `${echo.body.length} of ${LARGE} bytes came back`);

const logout = await ask("POST", "/auth/logout");
assert.equal(logout.status, 204);
assert.equal(cookie, undefined);
cookie = old;
assert.equal((await ask("GET", "/api/me")).status, 401);

// Idle connections would keep the process for a while.
process.exit(0);
