#!/usr/bin/env python3
"""What large bodies, idle connections and many connections cost in memory.

    python3 bench/wire/measure.py target/release/cloakroom

Starts a Cloakroom and an application on free loopback ports, and tells as a
table in Markdown:

- 1 GiB down and up: the rate, and the most memory that was ever in use (VmHWM);
- 10 000 connections that have had an answer and wait, in plaintext and over TLS:
  memory for each (Pss);
- clients that ask for 64 MiB and take none of it, in plaintext and over TLS: memory
  for each;
- 100 000 connections, one request each, every other one ended by a reset:
  memory (VmRSS) and open descriptors before, half-way and after.

Needs Python 3.9 or newer, openssl, Linux, and an `ulimit -Hn` of 11 000. Judges
nothing but that every answer was right: docs/wire-results.md does the rest.
"""

import argparse
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Descriptors beside those of idle connections.
SPARE = 1000
PIECE = bytes(1 << 18)
RESET = struct.pack("ii", 1, 0)
# What a client that takes nothing asks for: more than any buffer on its way holds.
UNTAKEN = 64 << 20
# For how long connections wait before they count as idle.
QUIET = 5

CONFIGURATION = """
routes = [{{ path = "/", access = "public" }}]
server.listen = ["127.0.0.1:0"]
server.limits.connections = 20000
upstreams.app.urls = ["http://127.0.0.1:{port}"]
session.secrets = [{{ env = "WIRE_SECRET" }}]
store.url = "memory:"
login.methods = [{{ kind = "users_file", path = "users.toml" }}]
admin.listen = "off"
log.format = "json"
log.access = false
"""

TLS = """
server.tls.certificates = [{ cert = "cert.pem", key = "key.pem" }]
"""


def head(stream):
    """The lines of a head, up to the empty one; none at the end."""
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line.strip().decode("latin-1"))
    return lines


def length_of(lines):
    fields = (line.partition(":") for line in lines[1:])
    return sum(int(value) for name, _, value in fields if name.lower() == "content-length")


def swallow(stream, length):
    buffer = bytearray(len(PIECE))
    while length:
        got = stream.readinto(memoryview(buffer)[: min(length, len(buffer))])
        if not got:
            raise RuntimeError(f"{length} bytes are missing")
        length -= got


def pour(connection, length):
    for start in range(0, length, len(PIECE)):
        connection.sendall(PIECE[: length - start])


class Application:
    """GET /N answers N bytes; a body is read to its end, and answered with none."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        # A short body goes out behind its head without waiting for anything.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream:
            while lines := head(stream):
                swallow(stream, length_of(lines))
                method, target, _ = lines[0].split()
                length = int(target[1:]) if method == "GET" else 0
                start = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                try:
                    connection.sendall(start.encode())
                    pour(connection, length)
                except OSError:
                    # Nobody wanted all of it.
                    return


class Proxy:
    def __init__(self, binary, folder, port, tls=False):
        folder = Path(folder)
        self.tls = client_tls(folder) if tls else None
        add = [binary, "user", "add", "nobody", "--password-stdin", "--file", "users.toml"]
        subprocess.run(
            add, input=os.urandom(16).hex().encode(), check=True, cwd=folder, stderr=subprocess.DEVNULL
        )
        text = CONFIGURATION.format(port=port) + (TLS if tls else "")
        (folder / "cloakroom.toml").write_text(text)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [binary, "run", "-c", "cloakroom.toml"],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "WIRE_SECRET": os.urandom(32).hex()},
            )
        self.address = ("127.0.0.1", self.find_port())

    def find_port(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            text = self.log.read_text(errors="replace")
            if '"ready"' in text:
                scheme = "https" if self.tls else "http"
                _, _, rest = text.partition(f"listening on {scheme}://127.0.0.1:")
                return int("".join(c for c in rest[:6] if c.isdigit()))
            time.sleep(0.02)
        raise RuntimeError(f"not ready: {self.log.read_text(errors='replace')}")

    def memory(self, key):
        """A line of the process's status, in KiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise RuntimeError(f"no {key}")

    def pss(self):
        """Its share of memory, in KiB."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def settle(self, most, patience=6):
        """Waits until no more descriptors than that are open, or some seconds."""
        deadline = time.monotonic() + patience
        while self.descriptors() > most and time.monotonic() < deadline:
            time.sleep(0.1)

    def connect(self, number=0):
        # Many sources, so that ports which wait after a close do not run out.
        source = f"127.0.{1 + number // 200 % 200}.{1 + number % 200}"
        connection = socket.create_connection(self.address, 30, (source, 0))
        if self.tls:
            return self.tls.wrap_socket(connection, server_hostname="localhost")
        return connection

    def get(self, connection, stream, length, more=""):
        request = f"GET /{length} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n"
        connection.sendall(request.encode())
        answered(head(stream), length)
        swallow(stream, length)


def client_tls(folder):
    """Makes a certificate there, and what trusts it."""
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*make.split(), *names, *files], check=True, cwd=folder, stderr=subprocess.DEVNULL)
    return ssl.create_default_context(cafile=folder / "cert.pem")


def answered(lines, length):
    if not lines or " 200 " not in lines[0] or length_of(lines) != length:
        raise RuntimeError(f"a wrong answer: {lines}")


def row(name, *values):
    print("|", " | ".join([name, *values]), "|", flush=True)


def kib(value):
    return f"{value:,} KiB".replace(",", " ")


def bodies(proxy, size):
    before = proxy.memory("VmHWM")
    with proxy.connect() as connection, connection.makefile("rb") as stream:
        start = time.monotonic()
        proxy.get(connection, stream, size)
        down = size / (time.monotonic() - start) / 1e6
        after_down = proxy.memory("VmHWM")
        start = time.monotonic()
        request = f"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(request.encode())
        pour(connection, size)
        answered(head(stream), 0)
        up = size / (time.monotonic() - start) / 1e6
    row("VmHWM at the start", kib(before))
    row(f"{size >> 20} MiB down", f"{down:.0f} MB/s, VmHWM {kib(after_down)}")
    row(f"{size >> 20} MiB up", f"{up:.0f} MB/s, VmHWM {kib(proxy.memory('VmHWM'))}")


def idle(proxy, count):
    with proxy.connect() as connection, connection.makefile("rb") as stream:
        # What the first request costs is not the connections'.
        proxy.get(connection, stream, 2)
    time.sleep(QUIET)
    before, open_before = proxy.pss(), proxy.descriptors()
    kept = []
    for number in range(count):
        connection = proxy.connect(number)
        with connection.makefile("rb", buffering=512) as stream:
            proxy.get(connection, stream, 2)
        kept.append(connection)
    time.sleep(QUIET)
    after = proxy.pss()
    row(f"{count} idle connections", f"Pss {kib(before)} to {kib(after)}")
    row("for each of them", f"{(after - before) / count:.2f} KiB")
    # The first and the last are still served.
    for connection in (kept[0], kept[-1]):
        with connection.makefile("rb") as stream:
            proxy.get(connection, stream, 2)
    for connection in kept:
        connection.close()
    proxy.settle(open_before + 4)
    row("after they have closed", f"Pss {kib(proxy.pss())}")


def slow(proxy, count):
    before = proxy.pss()
    kept = []
    for number in range(count):
        connection = proxy.connect(number)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"GET /{UNTAKEN} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
        kept.append(connection)
    time.sleep(QUIET)
    after = proxy.pss()
    row(f"{count} that take nothing", f"Pss {kib(before)} to {kib(after)}")
    row("for each of them", f"{(after - before) / count:.2f} KiB")
    for connection in kept:
        connection.close()


def churn(proxy, count):
    def one(number):
        with proxy.connect(number) as connection, connection.makefile("rb") as stream:
            proxy.get(connection, stream, 2)
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def state(name):
        proxy.settle(before)
        row(name, f"VmRSS {kib(proxy.memory('VmRSS'))}, {proxy.descriptors()} descriptors")

    before = proxy.descriptors()
    state("before")
    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for half in (range(count // 2), range(count // 2, count)):
            for _ in pool.map(one, half, chunksize=1):
                pass
            state(f"after {half.stop} connections")
    row("connections in a second", f"{count / (time.monotonic() - start):.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--body", type=int, default=1 << 30, help="bytes (1 GiB)")
    parser.add_argument("--idle", type=int, default=10_000, help="connections")
    parser.add_argument("--slow", type=int, default=300, help="connections")
    parser.add_argument("--churn", type=int, default=100_000, help="connections")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < arguments.idle + SPARE:
        parser.error(f"ulimit -Hn is {hard}: too few for {arguments.idle} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    binary = str(Path(arguments.binary).resolve())
    parts = [
        (bodies, arguments.body, False),
        (idle, arguments.idle, False),
        (idle, arguments.idle, True),
        (slow, arguments.slow, False),
        (slow, arguments.slow, True),
        (churn, arguments.churn, False),
    ]
    for part, size, tls in parts:
        if not size:
            continue
        with tempfile.TemporaryDirectory(prefix="cloakroom-wire-") as folder:
            proxy = Proxy(binary, folder, Application().port, tls)
            try:
                print(f"\n| {part.__name__}{' over TLS' if tls else ''} | |\n|---|---|", flush=True)
                part(proxy, size)
            finally:
                proxy.process.terminate()
                proxy.process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
