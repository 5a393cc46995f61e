// Drives a real browser through signing in and out, with and without
// JavaScript, and takes screenshots of the login page.
//
//   node sign-in.mjs BASE_URL USER PASSWORD OUT_DIR
//
// The application behind BASE_URL shows the user id in `#user-id` on its
// protected start page and has a form that posts to /auth/logout. Exits 0 and
// prints `passed` if everything is as it should be, else 1 with the reason.
//
// CHROMIUM names the browser (default /usr/bin/chromium), COOKIE the session
// cookie (default cloakroom.sid), USER_ID the id that the application is
// expected to show (default: any).

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [base, user, password, out] = process.argv.slice(2);
if (out === undefined) {
  console.error("usage: node sign-in.mjs BASE_URL USER PASSWORD OUT_DIR");
  process.exit(2);
}
const origin = new URL(base).origin;
const cookieName = process.env.COOKIE ?? "cloakroom.sid";
const expectedId = process.env.USER_ID;
const timeout = 15_000;

const desktop = { width: 1280, height: 800 };
const phone = { width: 390, height: 844 };

class Failed extends Error {}

function check(condition, message) {
  if (!condition) throw new Failed(message);
}

function equal(actual, expected, what) {
  check(actual === expected, `${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(actual)}`);
}

const path = (page) => new URL(page.url()).pathname;

// A page of a new context with its own cookies. Whatever the content security
// policy blocks, and each script error, is a failure of the page.
async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: desktop, ...options });
  context.setDefaultTimeout(timeout);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (/content security policy/i.test(message.text())) complaints.push(message.text());
  });
  return { context, page, complaints };
}

async function expectLoginPage(page, when) {
  equal(path(page), "/auth/login", `path ${when}`);
  for (const selector of ["input[name=username]", "input[name=password]", "button[type=submit]"]) {
    equal(await page.locator(selector).count(), 1, `number of ${selector} ${when}`);
  }
}

async function submit(page, name, secret) {
  await page.fill("input[name=username]", name);
  await page.fill("input[name=password]", secret);
  await Promise.all([page.waitForNavigation({ timeout }), page.click("button[type=submit]")]);
}

async function sessionCookies(context) {
  return (await context.cookies(origin)).filter((cookie) => cookie.name === cookieName);
}

// The login page in one size and colour scheme: it fits the screen, its fields
// have names for a screen reader, and it follows the scheme. Returns the colour
// behind the text.
async function portrait(browser, name, options) {
  const { context, page, complaints } = await open(browser, options);
  await page.goto(`${origin}/`);
  await expectLoginPage(page, `of the login page (${name})`);
  await page.screenshot({ path: join(out, `login-${name}.png`), fullPage: true });

  const found = await page.evaluate(() => {
    const opaque = (colour) => !/^(transparent|rgba\(.*, 0\))$/.test(colour);
    const backgrounds = [document.body, document.documentElement].map((e) => getComputedStyle(e).backgroundColor);
    return {
      width: document.documentElement.scrollWidth,
      available: document.documentElement.clientWidth,
      language: document.documentElement.lang,
      title: document.title,
      unlabelled: [...document.querySelectorAll("input:not([type=hidden])")]
        .filter((input) => input.labels.length === 0 && !input.getAttribute("aria-label"))
        .map((input) => input.name),
      background: backgrounds.find(opaque) ?? "rgb(255, 255, 255)",
      text: getComputedStyle(document.body).color,
    };
  });
  check(found.width <= found.available, `${name}: the page is ${found.width} px wide on a screen of ${found.available} px`);
  check(found.language !== "", `${name}: <html> has no lang`);
  check(found.title !== "", `${name}: the page has no title`);
  equal(found.unlabelled.join(", "), "", `${name}: fields without a label`);
  check(found.background !== found.text, `${name}: text and background have the same colour`);
  equal(complaints.join("; "), "", `${name}: complaints of the browser`);
  await context.close();
  return found.background;
}

async function portraits(browser) {
  const colours = {};
  for (const [size, viewport] of Object.entries({ desktop, phone })) {
    for (const colorScheme of ["light", "dark"]) {
      const touch = size === "phone" ? { isMobile: true, hasTouch: true, deviceScaleFactor: 2 } : {};
      colours[`${size}-${colorScheme}`] = await portrait(browser, `${size}-${colorScheme}`, {
        viewport,
        colorScheme,
        ...touch,
      });
    }
    check(
      colours[`${size}-light`] !== colours[`${size}-dark`],
      `${size}: the login page looks the same (${colours[`${size}-dark`]}) in light and in dark`,
    );
  }
}

// One whole visit. Returns nothing; throws on the first surprise.
async function visit(browser, javaScriptEnabled) {
  const name = javaScriptEnabled ? "javascript" : "no-javascript";
  const { context, page, complaints } = await open(browser, { javaScriptEnabled });

  // A protected page leads to the login page, and leaves no session cookie.
  await page.goto(`${origin}/?tab=1`);
  await expectLoginPage(page, "after opening a protected page");
  equal((await sessionCookies(context)).length, 0, "session cookies of a visitor who is not signed in");

  // A wrong password is said aloud, and nothing is gained.
  await submit(page, user, `${password} but wrong`);
  await expectLoginPage(page, "after a wrong password");
  const alert = page.locator("[role=alert]");
  equal(await alert.count(), 1, "number of role=alert elements after a wrong password");
  check(await alert.isVisible(), "the error message is not visible");
  check(((await alert.textContent()) ?? "").trim() !== "", "the error message is empty");
  equal(await page.inputValue("input[name=password]"), "", "password in the page after a wrong one");
  equal((await sessionCookies(context)).length, 0, "session cookies after a wrong password");
  await page.screenshot({ path: join(out, `wrong-password-${name}.png`), fullPage: true });

  // Signing in leads back to where the visitor wanted to go.
  await submit(page, user, password);
  equal(page.url(), `${origin}/?tab=1`, "address after signing in");
  const shown = (await page.locator("#user-id").textContent()) ?? "";
  check(shown !== "", "the application shows no user id");
  if (expectedId !== undefined) equal(shown, expectedId, "user id");
  await page.screenshot({ path: join(out, `signed-in-${name}.png`), fullPage: true });

  await page.reload();
  equal(path(page), "/", "path after reloading");
  equal(await page.locator("#user-id").textContent(), shown, "user id after reloading");

  // The cookie is out of the reach of scripts and of other sites.
  const cookies = await sessionCookies(context);
  equal(cookies.length, 1, `number of ${cookieName} cookies`);
  const cookie = cookies[0];
  equal(cookie.httpOnly, true, "HttpOnly of the cookie");
  equal(cookie.sameSite, "Lax", "SameSite of the cookie");
  equal(cookie.path, "/", "Path of the cookie");
  if (javaScriptEnabled) {
    const seen = await page.evaluate(() => document.cookie);
    check(!seen.includes(cookieName), "a script can read the session cookie");
  }

  // The login page has nothing to ask of somebody who is signed in.
  await page.goto(`${origin}/auth/login`);
  equal(path(page), "/", "path of the login page for somebody who is signed in");

  // Signing out by the form of the application.
  await Promise.all([page.waitForNavigation({ timeout }), page.click('form[action="/auth/logout"] button')]);
  equal((await sessionCookies(context)).length, 0, "session cookies after signing out");
  await page.goto(`${origin}/`);
  await expectLoginPage(page, "of a protected page after signing out");
  equal(complaints.join("; "), "", "complaints of the browser");
  await context.close();

  // Whoever kept the cookie has nothing.
  const thief = await open(browser, { javaScriptEnabled });
  const { value, httpOnly, secure } = cookie;
  await thief.context.addCookies([{ name: cookieName, value, url: origin, httpOnly, secure, sameSite: "Lax" }]);
  await thief.page.goto(`${origin}/`);
  await expectLoginPage(thief.page, "of a protected page with the cookie of an ended session");
  const answer = await thief.context.request.get(`${origin}/api/me`, {
    headers: { accept: "application/json" },
    maxRedirects: 0,
    failOnStatusCode: false,
  });
  equal(answer.status(), 401, "status of a request with the cookie of an ended session");
  await thief.context.close();
}

async function main() {
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
    await portraits(browser);
    for (const javaScriptEnabled of [true, false]) {
      try {
        await visit(browser, javaScriptEnabled);
      } catch (error) {
        error.message = `${javaScriptEnabled ? "with" : "without"} JavaScript: ${error.message}`;
        throw error;
      }
    }
  } finally {
    await browser.close();
  }
}

try {
  await main();
  console.log("passed");
} catch (error) {
  console.error(error instanceof Failed ? `failed: ${error.message}` : `failed: ${error.stack}`);
  process.exitCode = 1;
}
