"""What grows with routes and sessions: `make bench-growth`.

The same request costs processor time on one and on a thousand routes, with ten and with
a hundred thousand sessions in the cache, and with a million in the store; and how much
memory the sessions in the cache take. Sessions are written into Redis as an Express
application would, since that many people cannot sign in.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import json
import os
import subprocess
import time
import urllib.parse
from functools import partial
from pathlib import Path
from statistics import median

from lab import Lab, need, put_between
from measure import SHORT, alternated, once, say

# Where the figures stand in docs/performance.md.
BEGIN, END = "<!-- make bench-growth: begin -->\n", "<!-- make bench-growth: end -->\n"

SECRET = b"f3Vx9Qk2Lw8Zr5Tn1Yb7Hd4Gs6Jp0McA"
FEW, MANY, STORED, ROUTES = 10, 100_000, 1_000_000, 1_000

# So many rounds are measured of the same processes: where in the machine's memory one lies
# changes its figures for as long as it runs.
ROUNDS_OF_ONE = 6
EXPRESS = f"""
store.layout = "express"
store.prefix = "sess:"
store.cache.entries = {2 * MANY}
# No cookie is to be sent again within the measurement.
session.touch_interval = "2h"
session.idle_timeout = "24h"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="Cloakroom, a release build")
    parser.add_argument("load", help="the load, a release build of bench/hot")
    parser.add_argument("--docs", help="a page whose figures are to be replaced")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    load, found = os.getloadavg()[0], []
    for begin in range(0, arguments.rounds, ROUNDS_OF_ONE):
        with Lab(arguments.binary, arguments.load) as lab:
            rounds = min(ROUNDS_OF_ONE, arguments.rounds - begin)
            found.append(measured(lab, rounds, arguments.seconds))
    text = markdown(found, arguments.rounds, arguments.seconds, load)
    print(text)
    if arguments.docs:
        put_between(Path(arguments.docs), BEGIN, END, text)


def measured(lab, rounds, seconds):
    """The quotients of some rounds, and the memory in KiB, of processes started anew."""
    routes = compared(lab, rounds, seconds, *with_routes(lab))
    redis = lab.redis()
    store(redis, range(MANY))
    few, many = (with_sessions(lab, redis, name) for name in ("few", "many"))
    empty = few[0].pss()
    use(lab, few, FEW)
    ten = few[0].pss()
    use(lab, many, MANY)
    memory = (empty, ten, many[0].pss())
    sessions = compared(lab, rounds, seconds, few, many)
    store(redis, range(MANY, STORED))
    stored = compared(lab, rounds, seconds, few, many)
    return routes, sessions, stored, memory


def markdown(found, rounds, seconds, load):
    *rows, memory = zip(*found)
    routes, sessions, stored = ([ratio for part in row for ratio in part] for row in rows)
    empty, ten, full = map(median, zip(*memory))
    lines = [
        f"Measured on {datetime.date.today()}: {rounds} alternating rounds of {seconds:g} s, 64 connections,",
        f"all processes started anew after {ROUNDS_OF_ONE}, load at the start {load:.1f}. Median (least to most).",
        "",
        "| | processor time for each request ÷ that of the smaller number |",
        "|---|---|",
        f"| {ROUTES} routes, of which the last is met; 1 route | {shown(routes)} |",
        f"| {MANY} sessions in the cache, in turn; {FEW} | {shown(sessions)} |",
        f"| the same with {STORED} sessions in Redis | {shown(stored)} |",
        "",
        f"Resident memory (Pss), with one worker: {mib(empty)} after the start, {mib(ten)} with",
        f"{FEW} sessions in the cache, {mib(full)} with {MANY}, which is "
        f"{(full - ten) * 1024 / (MANY - FEW):.0f} bytes each.",
        "",
    ]
    return "\n".join(lines)


def shown(ratios):
    return f"**{median(ratios):.3f}** ({min(ratios):.3f}–{max(ratios):.3f})"


def mib(kib):
    return f"{kib / 1024:.1f} MiB"


def with_routes(lab):
    """Two proxies whose tables differ, and what is asked of them."""
    other = ", ".join(f'{{ path = "/area{n}/", access = "public" }}' for n in range(ROUTES - 1))
    found = []
    for name, more in (("one route", ""), ("many routes", other + ", ")):
        proxy = lab.cloakroom(name, "memory:", routes=more + '{ path = "/", access = "login" }')
        found.append((proxy, ["--connections", 64, "--cookie", proxy.cookie]))
    return found


def with_sessions(lab, redis, name):
    """A proxy with these sessions, and what is asked of it. The load has as many cookies in
    its memory for few sessions as for many, over and over the same: what it takes of the
    processor's caches is nothing that the proxy's sessions cost."""
    count = FEW if name == "few" else MANY
    proxy = lab.cloakroom(name, f"redis://127.0.0.1:{redis}", more=EXPRESS)
    jar = lab.folder / f"{name}.cookies"
    cookie_name = proxy.cookie.partition("=")[0]
    jar.write_text("\n".join(f"{cookie_name}={cookie(n % count)}" for n in range(MANY)))
    return proxy, ["--connections", 64, "--cookies", str(jar)]


def use(lab, contender, count):
    """So that each is in the cache, its signature known, and its shortcut noted."""
    proxy, options = contender
    for _ in range(4):
        lab.load(proxy.plain, *options, "--requests", count + 64)
    time.sleep(2)


def compared(lab, rounds, seconds, small, large):
    """Processor time of the large one, divided by that of the small one."""
    say(f"{small[0].name}, {large[0].name}")
    turns = {name: partial(turn, lab, side) for name, side in (("small", small), ("large", large))}
    for proxy, _ in (small, large):
        proxy.asked = 0
    results = alternated(turns, rounds, seconds, SHORT)
    pairs = zip(results["large"], results["small"])
    return [own["cpu_us"] / other["cpu_us"] for own, other in pairs]


def turn(lab, side, seconds):
    """Goes on with the sessions where it stopped."""
    proxy, options = side
    proxy.cookie, kept = None, proxy.cookie
    result = once(lab, proxy, [*options, "--first", proxy.asked], False, seconds)
    proxy.cookie, proxy.asked = kept, proxy.asked + result["requests"]
    return result


def sid(number):
    return hashlib.sha256(f"session {number}".encode()).hexdigest()[:32]


def cookie(number):
    mac = hmac.new(SECRET, sid(number).encode(), hashlib.sha256).digest()
    value = f"s:{sid(number)}.{base64.b64encode(mac).decode().rstrip('=')}"
    return urllib.parse.quote(value, safe="")


def store(redis, numbers):
    """Writes sessions as connect-redis does."""
    life = 86400
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=life)
    expires = end.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    kept = {"originalMaxAge": life * 1000, "expires": expires, "httpOnly": True, "path": "/"}
    tool = [*need("redis-cli"), "-p", str(redis), "--pipe"]
    child = subprocess.Popen(tool, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    for number in numbers:
        record = json.dumps({"cookie": kept, "userId": f"user{number}"}, separators=(",", ":"))
        words = ["SET", f"sess:{sid(number)}", record, "EX", str(life)]
        command = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        child.stdin.write(command.encode())
    child.stdin.close()
    if child.wait() != 0:
        raise RuntimeError("redis-cli failed")


if __name__ == "__main__":
    main()
