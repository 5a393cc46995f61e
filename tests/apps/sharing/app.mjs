// An application that keeps its sessions itself, with express-session and connect-redis
// or connect-pg-simple, as it would without anything in front of it. It is told what it
// is by the environment:
//
// REDIS       the server's URL
// POSTGRES    instead of it, the options of pg's pool, as JSON
// PG_STORE    more options of connect-pg-simple, as JSON
// SECRETS     the secrets of its cookies, as a JSON array; the first signs
// CONNECT     connect-redis: "current" (the default), "7" or "6"
// COOKIE      the options of its cookie, as JSON
// OPTIONS     more options of express-session, as JSON
// USER        "plain" keeps the user in req.session.userId; "passport" uses Passport, and
//             "passport-5" its version 0.5
//
// It listens on any free port of 127.0.0.1 and prints `listening PORT`.

import express from "express";
import session from "express-session";
import passport6 from "passport";
import passport5 from "passport-5";
import { Strategy } from "passport-custom";

const { REDIS, POSTGRES, PG_STORE = "{}" } = process.env;
const { SECRETS, CONNECT = "current", COOKIE = "{}", OPTIONS = "{}", USER = "plain" } = process.env;

const stores = {
  async current() {
    const { RedisStore } = await import("connect-redis");
    const { createClient } = await import("redis");
    const client = createClient({ url: REDIS });
    client.on("error", () => {});
    await client.connect();
    return new RedisStore({ client });
  },
  async 7() {
    const { default: RedisStore } = await import("connect-redis-7");
    const { createClient } = await import("redis-4");
    const client = createClient({ url: REDIS });
    client.on("error", () => {});
    await client.connect();
    return new RedisStore({ client });
  },
  async 6() {
    const { default: connect } = await import("connect-redis-6");
    const { default: redis } = await import("redis-3");
    const client = redis.createClient(REDIS);
    client.on("error", () => {});
    return new (connect(session))({ client });
  },
  async postgres() {
    const { default: connect } = await import("connect-pg-simple");
    const { default: pg } = await import("pg");
    const pool = new pg.Pool(JSON.parse(POSTGRES));
    pool.on("error", () => {});
    return new (connect(session))({ pool, errorLog: () => {}, ...JSON.parse(PG_STORE) });
  },
};

const app = express();
app.disable("x-powered-by");
app.set("trust proxy", "loopback");
app.use(express.json());
app.use(
  session({
    name: "connect.sid",
    secret: JSON.parse(SECRETS),
    store: await stores[POSTGRES ? "postgres" : CONNECT](),
    resave: false,
    saveUninitialized: false,
    cookie: JSON.parse(COOKIE),
    ...JSON.parse(OPTIONS),
  }),
);

const passport = { passport: passport6, "passport-5": passport5 }[USER];
const userOf = (req) => (passport ? req.session.passport?.user : req.session.userId);

if (passport) {
  // Version 0.5 wants both of them.
  app.use(passport.initialize());
  passport.use("trusting", new Strategy((req, done) => done(null, req.body.user)));
  passport.serializeUser((user, done) => done(null, user));
  passport.deserializeUser((user, done) => done(null, user));
  app.use(passport.session());
}

const failed = (res, next) => (error) => (error ? next(error) : res.json({ ok: true }));

// Its own login, as its developer wrote it.
app.post("/public/app-login", (req, res, next) => {
  if (passport) {
    passport.authenticate("trusting")(req, res, failed(res, next));
    return;
  }
  req.session.regenerate((error) => {
    if (error) return next(error);
    Object.assign(req.session, { userId: req.body.user, roles: req.body.roles });
    res.json({ ok: true });
  });
});

app.post("/public/app-logout", (req, res, next) => {
  if (passport === passport5) {
    req.logout();
    res.json({ ok: true });
    return;
  }
  if (passport) {
    req.logout(failed(res, next));
    return;
  }
  req.session.destroy(failed(res, next));
});

// What it sees of the visitor: in its own session, and in the headers.
const show = (req, res) => {
  const { cookie, ...fields } = req.session;
  res.json({
    user: userOf(req) ?? null,
    header: req.get("x-user-id") ?? null,
    sid: req.sessionID,
    age: cookie.originalMaxAge,
    fields,
  });
};
app.get("/", show);
app.get("/public", show);

// Changes its session.
const keep = (req, res) => {
  Object.assign(req.session, req.body);
  res.json({ ok: true });
};
app.post("/keep", keep);
app.post("/public/keep", keep);

// Changes its session, and is not done before it is told so.
const held = new Map();
app.post("/hold/:name", (req, res) => {
  req.session.held = req.params.name;
  held.set(req.params.name, () => res.json({ ok: true }));
  console.log(`held ${req.params.name}`);
});
app.post("/public/release/:name", (req, res) => {
  held.get(req.params.name)();
  res.json({ ok: true });
});

app.use((error, req, res, next) => {
  res.status(500).json({ error: error.message });
});

const server = app.listen(0, "127.0.0.1", (error) => {
  if (error) {
    console.error(error.message);
    process.exit(1);
  }
  console.log(`listening ${server.address().port}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => process.exit(0));
}
