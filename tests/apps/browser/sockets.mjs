// Signs in over HTTP/2 with a real browser, and lets the page of the sockets
// application open a WebSocket and a Socket.IO connection.
//
//   node sockets.mjs BASE_URL USER PASSWORD ID OUT_DIR
//
// The browser takes the certificate of https://localhost as it is: that it is
// verified is tested elsewhere. Prints `passed`, or ends with 1 and the reason.
// CHROMIUM names the browser (default /usr/bin/chromium).

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [base, user, password, id, out] = process.argv.slice(2);
const timeout = 15_000;

async function visit(browser) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  context.setDefaultTimeout(timeout);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));

  // Nobody has no socket: the handshake is refused, whatever the page does.
  // (The login page's own policy would not let it try.)
  await page.goto(`${base}/public`);
  assert.equal(await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol), "h2");
  const refused = await page.evaluate(
    (longest) =>
      new Promise((resolve) => {
        setTimeout(resolve, longest, "nothing");
        const socket = new WebSocket(new URL("/echo", location.href).href.replace("http", "ws"));
        socket.onopen = () => resolve("open");
        socket.onclose = ({ code, wasClean }) => resolve(`${code} ${wasClean}`);
      }),
    timeout,
  );
  assert.equal(refused, "1006 false");

  await page.goto(`${base}/`);
  await page.fill("input[name=username]", user);
  await page.fill("input[name=password]", password);
  await Promise.all([page.waitForURL(`${base}/`), page.click("button[type=submit]")]);
  assert.equal(await page.textContent("#user-id"), id);
  const becomes = async (name, text) => {
    const place = page.locator(`#${name}`);
    const matches = () => place.filter({ hasText: text }).waitFor();
    await matches().catch(async () => assert.equal(await place.textContent(), text));
  };
  await becomes("plain", `${id}: hello over first`);
  await becomes("closed", "1000 done true");
  await becomes("socket-io", `HELLO to ${id} over websocket`);
  await page.screenshot({ path: join(out, "sockets.png") });
  assert.equal(await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol), "h2");
  assert.deepEqual(complaints, []);
  await context.close();
}

await mkdir(out, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  await visit(browser);
  console.log("passed");
} catch (error) {
  console.error(`failed: ${error.stack}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
