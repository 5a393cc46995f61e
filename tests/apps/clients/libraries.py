"""Walks through a whole session with a client library for Python.

    python3 libraries.py LIBRARY URL USER PASSWORD ID [AUTHORITY]

LIBRARY is requests, httpx or httpx-h2. An https URL is verified against the
certificates in AUTHORITY. Ends with 1 and says why if anything is not as it
should be.
"""

import asyncio
import html
import os
import re
import sys

import httpx
import requests

library, base, username, password, user_id = sys.argv[1:6]
authority = sys.argv[6] if len(sys.argv) > 6 else True
LARGE = 8 * 1024 * 1024


def check(found, wanted):
    if found != wanted:
        raise SystemExit(f"{found!r} instead of {wanted!r}")


class Requests:
    """A session of requests."""

    version = 11

    def __init__(self):
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = authority

    def ask(self, method, path, **options):
        content = options.pop("content", None)
        response = self.session.request(method, base + path, data=content, timeout=30, **options)
        check(response.raw.version, self.version)
        return response

    def form(self, url, fields):
        return self.session.post(url, data=fields, timeout=30)

    def cookies(self):
        return dict(self.session.cookies)

    def remember(self, cookies):
        self.session.cookies.update(cookies)


class Httpx:
    """A client of httpx."""

    def __init__(self, http2):
        self.version = "HTTP/2" if http2 else "HTTP/1.1"
        self.client = httpx.Client(
            http1=not http2, http2=http2, verify=authority, trust_env=False, follow_redirects=True, timeout=30
        )

    def ask(self, method, path, **options):
        response = self.client.request(method, base + path, **options)
        check(response.http_version, self.version)
        return response

    def form(self, url, fields):
        return self.client.post(url, data=fields)

    def cookies(self):
        return dict(self.client.cookies)

    def remember(self, cookies):
        for name, value in cookies.items():
            self.client.cookies.set(name, value, domain="localhost.local")


client = {
    "requests": Requests,
    "httpx": lambda: Httpx(False),
    "httpx-h2": lambda: Httpx(True),
}[library]()

anonymous = client.ask("GET", "/api/me")
check((anonymous.status_code, anonymous.json()["reason"]), (401, "no_cookie"))

# As a person: over the login page, and back to where it began.
page = client.ask("GET", "/api/me?from=page", headers={"Accept": "text/html"})
check((page.status_code, str(page.url).split("?")[0]), (200, f"{base}/auth/login"))
check(client.cookies(), {})
hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
fields = {name: html.unescape(value) for name, value in hidden}
wrong = client.form(str(page.url), {**fields, "username": username, "password": "wrong"})
check((wrong.status_code, client.cookies()), (401, {}))
back = client.form(str(page.url), {**fields, "username": username, "password": password})
check((back.status_code, str(back.url)), (200, f"{base}/api/me?from=page"))
check(dict(back.json()["headers"])["x-user-id"], user_id)
check(client.ask("POST", "/auth/logout").status_code, 204)
check((client.ask("GET", "/api/me").status_code, client.cookies()), (401, {}))

# As a program.
login = client.ask("POST", "/auth/login", json={"username": username, "password": password})
check((login.status_code, login.json()["user"]["id"]), (200, user_id))
old = client.cookies()
check(len(old), 1)
for number in range(20):
    answer = client.ask("GET", f"/api/me?{number}")
    check((answer.status_code, dict(answer.json()["headers"])["x-user-id"]), (200, user_id))

large = os.urandom(LARGE)
echo = client.ask("POST", "/echo", content=large)
check((echo.status_code, echo.content == large), (200, True))
# Without a length.
pieces = (large[i : i + 65536] for i in range(0, LARGE, 65536))
echo = client.ask("POST", "/echo", content=pieces)
check((echo.status_code, echo.content == large), (200, True))
upload = client.ask("POST", "/echo", files={"file": ("a name.bin", large)})
check((upload.status_code, large in upload.content), (200, True))


async def at_once():
    """Twenty requests on as many connections as the library likes."""
    options = {"http1": library == "httpx", "http2": library == "httpx-h2", "verify": authority, "trust_env": False}
    async with httpx.AsyncClient(cookies=old, timeout=30, **options) as many:
        answers = await asyncio.gather(*(many.get(f"{base}/api/me?{n}") for n in range(20)))
    for answer in answers:
        check((answer.status_code, dict(answer.json()["headers"])["x-user-id"]), (200, user_id))


if library != "requests":
    asyncio.run(at_once())

check(client.ask("POST", "/auth/logout").status_code, 204)
check(client.cookies(), {})
client.remember(old)
check(client.ask("GET", "/api/me").status_code, 401)
