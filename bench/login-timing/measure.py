#!/usr/bin/env python3
"""Does the time of a refused login tell whether the user exists?

Starts a Cloakroom on a free loopback port with users of its own, then sends
logins in pairs, one with a wrong password for a user that exists, one for a
user that does not, in random order within each pair. Compares the times with
the Mann-Whitney U test, and every answer byte for byte but for `Date` and
`X-Request-Id`.

    python3 bench/login-timing/measure.py target/release/cloakroom

Needs Python 3.9 or newer and nothing else. Exit code: 0 if nothing tells them
apart, 1 if bytes do or the times do (p below --alpha), 2 if it could not be
measured. With --alpha 0.001 one run in a thousand fails by chance.
"""

import argparse
import http.client
import json
import math
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

USERS = ["alice-00", "alice-01", "alice-02"]
PASSWORD = "the right password of everybody"
WRONG = "a wrong password of that length"
IGNORED = {"date", "x-request-id"}

CONFIGURATION = """
[server]
listen = ["127.0.0.1:0"]

[upstreams.app]
urls = ["http://127.0.0.1:9"]

[session]
secrets = [{ env = "LOGIN_TIMING_SECRET" }]

[store]
url = "memory:"

[[login.methods]]
kind = "users_file"
path = "users.toml"

[admin]
listen = "off"

[log]
format = "json"
"""


class Proxy:
    """A running Cloakroom; its folder and process end with the `with` block."""

    def __init__(self, binary):
        self.binary = str(Path(binary).resolve())

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="cloakroom-timing-")
        folder = Path(self.folder.name)
        for name in USERS:
            command = [self.binary, "user", "add", name, "--password-stdin"]
            subprocess.run(
                [*command, "--file", str(folder / "users.toml")],
                input=PASSWORD.encode(),
                check=True,
                stderr=subprocess.DEVNULL,
            )
        (folder / "cloakroom.toml").write_text(CONFIGURATION)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CLOAKROOM")}
        environment["LOGIN_TIMING_SECRET"] = os.urandom(32).hex()
        log = open(folder / "log", "wb")
        self.process = subprocess.Popen(
            [self.binary, "run", "-c", str(folder / "cloakroom.toml")],
            stdout=log,
            stderr=log,
            env=environment,
        )
        log.close()
        try:
            self.port = self.wait_for_port(folder / "log")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def wait_for_port(self, log):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            text = log.read_text(errors="replace")
            port = re.search(r"listening on http://127\.0\.0\.1:(\d+)", text)
            if port and '"ready"' in text:
                return int(port.group(1))
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.binary} ended: {text}")
            time.sleep(0.02)
        raise RuntimeError(f"{self.binary} was not ready in time")


class Client:
    """One kept connection, so that connecting is not measured."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def login(self, name):
        """Milliseconds, and everything that an answer may tell by its bytes."""
        body = json.dumps({"username": name, "password": WRONG})
        fields = {"Content-Type": "application/json"}
        start = time.perf_counter_ns()
        self.connection.request("POST", "/auth/login", body, fields)
        response = self.connection.getresponse()
        content = response.read()
        took = (time.perf_counter_ns() - start) / 1e6
        head = tuple((n, v) for n, v in response.getheaders() if n.lower() not in IGNORED)
        return took, (response.version, response.status, response.reason, head, content)


def unknown_name(number):
    """A name that nobody has, as long as those that somebody has, and new each time."""
    return f"x{number:07d}"


def mann_whitney(first, second):
    """(U of `first`, two-sided p), by the normal approximation with the
    corrections for ties and continuity, which is exact enough from 20 on."""
    n, m = len(first), len(second)
    tagged = sorted([(v, 0) for v in first] + [(v, 1) for v in second])
    ranks, ties, at = 0.0, 0, 0
    while at < n + m:
        end = at
        while end < n + m and tagged[end][0] == tagged[at][0]:
            end += 1
        alike = end - at
        ties += alike**3 - alike
        rank = (at + 1 + end) / 2
        ranks += rank * sum(1 for _, group in tagged[at:end] if group == 0)
        at = end
    u = ranks - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance == 0:
        return u, 1.0
    z = max(abs(u - n * m / 2) - 0.5, 0) / math.sqrt(variance)
    return u, math.erfc(z / math.sqrt(2))


def check_statistics():
    """The test against values worked out by hand."""
    # No overlap among 20 and 20: U is 0, and p is vanishingly small.
    u, p = mann_whitney(range(20), range(20, 40))
    assert u == 0 and p < 1e-6, (u, p)
    # The same values twice: U is n * m / 2, and p is 1.
    u, p = mann_whitney(range(30), range(30))
    assert u == 450 and p == 1.0, (u, p)
    # U = 8, mean 12.5, variance 275/12: z = 4 / 4.7871.
    u, p = mann_whitney([1, 2, 4, 7, 9], [3, 5, 6, 8, 10])
    assert u == 8 and abs(p - 0.40340) < 1e-4, (u, p)


def run(port, pairs, warm_up, seed):
    client = Client(port)
    chance = random.Random(seed)
    times = {"wrong password": [], "unknown user": []}
    expected = None
    for number in range(warm_up + pairs):
        attempts = [
            ("wrong password", USERS[number % len(USERS)]),
            ("unknown user", unknown_name(number)),
        ]
        chance.shuffle(attempts)
        for kind, name in attempts:
            took, answer = client.login(name)
            if answer[1] != 401:
                raise RuntimeError(f"{kind}: expected 401, got {answer}")
            expected = expected or answer
            if answer != expected:
                print(f"The answers differ:\n{expected}\n{answer}", file=sys.stderr)
                return None
            if number >= warm_up:
                times[kind].append(took)
    return times


def report(times, alpha):
    wrong, unknown = times["wrong password"], times["unknown user"]
    u, p = mann_whitney(wrong, unknown)
    print("| | logins | lower quartile | median | upper quartile |")
    print("|---|---|---|---|---|")
    for kind, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"| {kind} | {len(values)} | {low:.3f} ms | {middle:.3f} ms | {high:.3f} ms |")
    difference = statistics.median(wrong) - statistics.median(unknown)
    longer = u / (len(wrong) * len(unknown))
    print()
    print(f"Difference of the medians (wrong - unknown): {difference:+.3f} ms.")
    print(f"A wrong password took longer than an unknown user in {longer:.1%} of all comparisons")
    print("(50 %: it tells nothing).")
    print(f"Mann-Whitney U = {u:.1f}, two-sided p = {p:.4f}.")
    print("Bodies and headers: identical, but for Date and X-Request-Id.")
    return p >= alpha


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="path of the cloakroom binary")
    parser.add_argument("--pairs", type=int, default=500, help="pairs of logins (default 500)")
    parser.add_argument("--warm-up", type=int, default=20, help="pairs that are not counted")
    parser.add_argument("--alpha", type=float, default=0.001, help="p below this fails")
    parser.add_argument("--seed", type=int, default=None, help="of the order within pairs")
    arguments = parser.parse_args()
    if arguments.pairs < 300:
        parser.error("--pairs: fewer than 300 say little")
    check_statistics()
    try:
        version = subprocess.run([arguments.binary, "--version"], capture_output=True, check=True)
        with Proxy(arguments.binary) as proxy:
            times = run(proxy.port, arguments.pairs, arguments.warm_up, arguments.seed)
    except (OSError, RuntimeError, subprocess.CalledProcessError, http.client.HTTPException) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 2
    if times is None:
        return 1
    print(
        f"{version.stdout.decode().strip()}, {os.cpu_count()} CPUs, {platform.system()}, "
        f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}\n"
    )
    return 0 if report(times, arguments.alpha) else 1


if __name__ == "__main__":
    sys.exit(main())
