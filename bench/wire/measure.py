#!/usr/bin/env python3
"""What large bodies, idle connections and many connections cost in memory.

    python3 bench/wire/measure.py target/release/cloakroom

Starts a Cloakroom and an application on free loopback ports, and tells as a
table in Markdown:

- 1 GiB down and up: the rate, and the most memory that was ever in use (VmHWM);
- 10 000 connections that have had an answer and wait: memory for each;
- 100 000 connections, one request each, every other one ended by a reset:
  memory (VmRSS) and open descriptors before, half-way and after.

Needs Python 3.9 or newer, Linux, and an `ulimit -Hn` of 11 000. Judges
nothing but that every answer was right: docs/wire-results.md does the rest.
"""

import argparse
import os
import resource
import socket
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
                connection.sendall(start.encode())
                pour(connection, length)


class Proxy:
    def __init__(self, binary, folder, port):
        folder = Path(folder)
        add = [binary, "user", "add", "nobody", "--password-stdin", "--file", "users.toml"]
        subprocess.run(
            add, input=os.urandom(16).hex().encode(), check=True, cwd=folder, stderr=subprocess.DEVNULL
        )
        (folder / "cloakroom.toml").write_text(CONFIGURATION.format(port=port))
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
                _, _, rest = text.partition("listening on http://127.0.0.1:")
                return int("".join(c for c in rest[:6] if c.isdigit()))
            time.sleep(0.02)
        raise RuntimeError(f"not ready: {self.log.read_text(errors='replace')}")

    def memory(self, key):
        """A line of the process's status, in KiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise RuntimeError(f"no {key}")

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
        return socket.create_connection(self.address, 30, (source, 0))

    def get(self, connection, stream, length, more=""):
        request = f"GET /{length} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n"
        connection.sendall(request.encode())
        answered(head(stream), length)
        swallow(stream, length)


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
    before, open_before = proxy.memory("VmRSS"), proxy.descriptors()
    kept = []
    for number in range(count):
        connection = proxy.connect(number)
        with connection.makefile("rb", buffering=512) as stream:
            proxy.get(connection, stream, 2)
        kept.append(connection)
    after = proxy.memory("VmRSS")
    row(f"{count} idle connections", f"VmRSS {kib(before)} to {kib(after)}")
    row("for each of them", f"{(after - before) / count:.2f} KiB")
    # The first and the last are still served.
    for connection in (kept[0], kept[-1]):
        with connection.makefile("rb") as stream:
            proxy.get(connection, stream, 2)
    for connection in kept:
        connection.close()
    proxy.settle(open_before + 4)
    row("after they have closed", f"VmRSS {kib(proxy.memory('VmRSS'))}")


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
    parser.add_argument("--churn", type=int, default=100_000, help="connections")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < arguments.idle + SPARE:
        parser.error(f"ulimit -Hn is {hard}: too few for {arguments.idle} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    binary = str(Path(arguments.binary).resolve())
    parts = [(bodies, arguments.body), (idle, arguments.idle), (churn, arguments.churn)]
    for part, size in parts:
        with tempfile.TemporaryDirectory(prefix="cloakroom-wire-") as folder:
            proxy = Proxy(binary, folder, Application().port)
            try:
                print(f"\n| {part.__name__} | |\n|---|---|", flush=True)
                part(proxy, size)
            finally:
                proxy.process.terminate()
                proxy.process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
