"""Walks through a whole session with the client of Python's own library.

    python3 session.py URL USER PASSWORD ID [AUTHORITY]

One kept connection: nobody, somebody, nobody. AUTHORITY is the file of the
authority that an https URL is verified against. Ends with 1 and says why if
anything is not as it should be.
"""

import http.client
import http.cookies
import json
import os
import ssl
import sys
import urllib.parse

LARGE = 8 * 1024 * 1024

base, username, password, user_id = sys.argv[1:5]
url = urllib.parse.urlsplit(base)
if url.scheme == "https":
    context = ssl.create_default_context(cafile=sys.argv[5])
    connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=20, context=context)
else:
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
connection.connect()
# Nobody reconnects behind our back: a connection that is closed is an error.
connection.auto_open = 0
cookie = None


def ask(method, path, body=None, kind=None):
    """The status and the body."""
    global cookie
    fields = {}
    if cookie is not None:
        fields["Cookie"] = cookie
    if kind is not None:
        fields["Content-Type"] = kind
    connection.request(method, path, body, fields)
    response = connection.getresponse()
    content = response.read()
    for text in response.headers.get_all("Set-Cookie", []):
        for morsel in http.cookies.SimpleCookie(text).values():
            assert url.scheme == "http" or morsel["secure"], text
            gone = morsel["max-age"] == "0"
            cookie = None if gone else f"{morsel.key}={morsel.coded_value}"
    return response.status, content


def check(found, wanted):
    if found != wanted:
        raise SystemExit(f"{found!r} instead of {wanted!r}")


status, content = ask("GET", "/api/me")
check((status, json.loads(content)["reason"]), (401, "no_cookie"))

credentials = json.dumps({"username": username, "password": password})
status, content = ask("POST", "/auth/login", credentials, "application/json")
check((status, json.loads(content).get("user", {}).get("id")), (200, user_id))
old = cookie

for number in range(20):
    status, content = ask("GET", f"/api/me?{number}")
    check((status, dict(json.loads(content)["headers"])["x-user-id"]), (200, user_id))

large = os.urandom(LARGE)
status, content = ask("POST", "/echo", large, "application/octet-stream")
check((status, content == large), (200, True))
# Without a length: an iterable goes in chunks.
pieces = (large[i : i + 65536] for i in range(0, LARGE, 65536))
status, content = ask("POST", "/echo", pieces, "application/octet-stream")
check((status, content == large), (200, True))

status, _ = ask("POST", "/auth/logout")
check((status, cookie), (204, None))
cookie = old
check(ask("GET", "/api/me")[0], 401)
