// Calls the service at ADDRESS in every way, with COOKIE, and checks what comes
// back. Ends with 0 if all is well.
import assert from "node:assert/strict";
import grpc from "@grpc/grpc-js";
import { Echo } from "./service.mjs";

const [address, cookie, expectedUser] = process.argv.slice(2);
const Client = grpc.makeGenericClientConstructor(Echo, "Echo");
const client = new Client(address, grpc.credentials.createInsecure());
const options = () => ({ deadline: Date.now() + 15_000 });
const metadata = () => {
  const fields = new grpc.Metadata();
  fields.set("cookie", cookie);
  return fields;
};

const collect = (call) =>
  new Promise((resolve, reject) => {
    const messages = [];
    call.on("data", (message) => messages.push(message));
    call.on("end", () => resolve(messages));
    call.on("error", reject);
  });

// Unary, with trailers beside the status.
{
  let status;
  const reply = await new Promise((resolve, reject) => {
    let value;
    const call = client.unary({ say: "hello" }, metadata(), options(), (error, answer) => {
      if (error) reject(error);
      else if (status) resolve(answer);
      else value = answer;
    });
    call.on("status", (found) => {
      status = found;
      if (value) resolve(value);
    });
  });
  assert.deepEqual(reply, { said: "hello", user: expectedUser });
  assert.equal(status.code, grpc.status.OK);
  assert.deepEqual(status.metadata.get("x-after"), ["the end"]);
}

// A message larger than any window.
{
  const say = "0123456789".repeat(200_000);
  const reply = await new Promise((resolve, reject) => {
    client.unary({ say }, metadata(), options(), (error, value) => (error ? reject(error) : resolve(value)));
  });
  assert.equal(reply.said, say);
}

// Server streaming.
{
  const messages = await collect(client.serverStream({ count: 1000 }, metadata(), options()));
  assert.equal(messages.length, 1000);
  assert.deepEqual(messages.at(-1), { number: 999 });
}

// Client streaming.
{
  const reply = await new Promise((resolve, reject) => {
    const call = client.clientStream(metadata(), options(), (error, value) => (error ? reject(error) : resolve(value)));
    for (let number = 1; number <= 1000; number += 1) call.write({ number });
    call.end();
  });
  assert.deepEqual(reply, { sum: 500_500 });
}

// Both at once, each message an answer to the one before.
await new Promise((resolve, reject) => {
  const call = client.bidi(metadata(), options());
  let last = 0;
  call.on("data", (message) => {
    last = message.number;
    if (last >= 1024) call.end();
    else call.write({ number: last });
  });
  call.on("error", reject);
  call.on("end", () => (last === 1024 ? resolve() : reject(new Error(`ended at ${last}`))));
  call.write({ number: 1 });
});

// A status other than OK.
await assert.rejects(
  new Promise((resolve, reject) => {
    client.fail({}, metadata(), options(), (error, value) => (error ? reject(error) : resolve(value)));
  }),
  (error) => error.code === grpc.status.NOT_FOUND && error.details === "no such thing: ü",
);

// Cancellation.
await new Promise((resolve, reject) => {
  const call = client.wait({}, metadata(), options());
  call.on("data", () => call.cancel());
  call.on("error", (error) => (error.code === grpc.status.CANCELLED ? resolve() : reject(error)));
});

// Without a session.
await assert.rejects(
  new Promise((resolve, reject) => {
    client.unary({ say: "x" }, new grpc.Metadata(), options(), (error, value) => (error ? reject(error) : resolve(value)));
  }),
  (error) => error.code === grpc.status.UNAUTHENTICATED && error.details === "no_cookie",
);

client.close();
console.log("all is well");
