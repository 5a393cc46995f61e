// The service. Prints `listening PORT`, and `cancelled` when a caller of Wait
// has gone. TLS with the key and certificate in the variables KEY and CERT.
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import { Echo } from "./service.mjs";

const user = (call) => call.metadata.get("x-user-id")[0] ?? null;

const server = new grpc.Server();
server.addService(Echo, {
  unary(call, done) {
    const trailer = new grpc.Metadata();
    trailer.set("x-after", "the end");
    done(null, { said: call.request.say, user: user(call) }, trailer);
  },
  serverStream(call) {
    for (let number = 0; number < call.request.count; number += 1) call.write({ number });
    call.end();
  },
  clientStream(call, done) {
    let sum = 0;
    call.on("data", (message) => (sum += message.number));
    call.on("end", () => done(null, { sum }));
    call.on("error", () => {});
  },
  bidi(call) {
    call.on("data", (message) => call.write({ number: message.number * 2 }));
    call.on("end", () => call.end());
    call.on("error", () => {});
  },
  fail(_call, done) {
    done({ code: grpc.status.NOT_FOUND, details: "no such thing: ü" });
  },
  wait(call) {
    call.on("cancelled", () => console.log("cancelled"));
    call.write({ waiting: true });
  },
});

const credentials = process.env.KEY
  ? grpc.ServerCredentials.createSsl(null, [
      { private_key: readFileSync(process.env.KEY), cert_chain: readFileSync(process.env.CERT) },
    ])
  : grpc.ServerCredentials.createInsecure();
server.bindAsync("127.0.0.1:0", credentials, (error, port) => {
  if (error) throw error;
  console.log(`listening ${port}`);
});
