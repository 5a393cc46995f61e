#!/usr/bin/env python3
"""Measures what a request costs Cloakroom, beside other proxies on this machine.

    make bench            everything: about half an hour
    make bench-quick      fewer and shorter rounds

The figure is the processor time of all of a proxy's processes for each request,
divided by that of nginx in the same round. In a round all of them have their turn many
times, forward and backward, so that what the machine does beside meets all alike. After
two rounds of all rows all proxies are started anew: where in the machine's memory a process
lies changes its figures by some hundredths for as long as it runs.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from lab import Lab, need, put_between

NGINX = "nginx"
REDIS = "Cloakroom, sessions in Redis"
UNCACHED = "Cloakroom, Redis asked each time"
MEMORY = "Cloakroom, sessions in memory"
HAPROXY = "HAProxy"
AUTH = "nginx auth_request"
EXPRESS = "Express proxy"
ALL = [NGINX, REDIS, UNCACHED, MEMORY, HAPROXY, AUTH, EXPRESS]
WITH_TLS = [NGINX, REDIS, HAPROXY, AUTH]

# Where the table stands in docs/performance.md.
BEGIN, END = "<!-- make bench: begin -->\n", "<!-- make bench: end -->\n"

# So many rounds of a row are measured of the same processes.
ROUNDS_OF_ONE = 2

# The pieces of a round, in seconds; h2load counts in whole ones.
SHORT, LONG = 0.5, 1.0

# name, options of the load, TLS, contenders
SCENARIOS = [
    ("keep-alive, 1 connection", ["--connections", 1], False, ALL),
    ("keep-alive, 64 connections", ["--connections", 64], False, ALL),
    ("keep-alive, 512 connections", ["--connections", 512], False, ALL),
    ("10 KB", ["--connections", 64, "--path", "/10240"], False, ALL),
    ("1 MB", ["--connections", 16, "--path", "/1048576"], False, ALL),
    ("new connection", ["--connections", 16, "--new"], False, ALL),
    ("TLS, keep-alive", ["--connections", 64], True, WITH_TLS),
    ("TLS, full handshake", ["--connections", 16, "--new"], True, WITH_TLS),
    ("HTTP/2 over TLS, 8 × 8", None, True, WITH_TLS),
    ("2 000 a second", ["--connections", 64, "--rate", 2000], False, ALL),
]


def h2load(lab, contender, seconds):
    """Requests that were answered with 200."""
    command = ["taskset", "-c", str(lab.cores["other"]), *need("h2load")]
    command += ["-c", "8", "-m", "8", "-D", str(max(1, round(seconds)))]
    if contender.cookie:
        command += ["-H", f"cookie: theme=dark; {contender.cookie}"]
    command += [f"https://127.0.0.1:{contender.tls}/200"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done)
    if not counts or any(int(n) for n in counts.groups()[1:]) or not int(counts[1]):
        raise RuntimeError(f"h2load: {done}")
    return {"requests": int(counts[1])}


def once(lab, contender, options, tls, seconds):
    """One round of one contender."""
    before, start = contender.cpu(), time.monotonic()
    if options is None:
        result = h2load(lab, contender, seconds)
    else:
        port = contender.tls if tls else contender.plain
        result = lab.load(port, *options, "--seconds", seconds, cookie=contender.cookie, tls=tls)
        if result["resumed"]:
            raise RuntimeError("a TLS session was resumed: these were no full handshakes")
    result["cpu"], result["seconds"] = contender.cpu() - before, time.monotonic() - start
    return result


def alternated(turns, rounds, seconds, piece):
    """What each turn gives, by its name, for each round. A turn is a function of seconds,
    and has so many in each round, in pieces of this length."""
    results = {name: [] for name in turns}
    order = list(turns)
    # The first ones warm up, and are forgotten.
    for name in order:
        turns[name](0.3)
    for number in range(rounds):
        pieces = {name: [] for name in turns}
        for _ in range(max(1, round(seconds / piece))):
            order.reverse()
            for name in order:
                pieces[name].append(turns[name](min(seconds, piece)))
        for name, parts in pieces.items():
            results[name].append(whole(parts))
        say(f"round {number + 1} of {rounds}")
    return results


def whole(parts):
    """The pieces of a round as one."""
    total = {key: sum(part[key] for part in parts) for key in ("requests", "cpu", "seconds")}
    return {
        "cpu_us": total["cpu"] * 1e6 / total["requests"],
        "rate": total["requests"] / total["seconds"],
        **{key: median(part[key] for part in parts) for key in ("p50", "p99") if key in parts[0]},
    }


def scenario(lab, contenders, name, options, tls, names, rounds, seconds):
    """What each round gives, by the names of the contenders."""
    chosen = [contenders[key, tls] for key in names if (key, tls) in contenders]
    turns = {c.name: partial(once, lab, c, options, tls) for c in chosen}
    say(name)
    return alternated(turns, rounds, seconds, piece_of(options, tls, seconds))


def row(results):
    """What the rounds of a scenario come to."""
    table = {}
    for name, own_results in results.items():
        pairs = zip(own_results, results[NGINX])
        ratios = [own["cpu_us"] / nginx["cpu_us"] for own, nginx in pairs]
        table[name] = {
            "ratio": median(ratios),
            "range": [min(ratios), max(ratios)],
            "ratios": ratios,
            **{
                key: median(result[key] for result in own_results)
                for key in ("cpu_us", "rate", "p50", "p99")
                if key in own_results[0]
            },
        }
    return table


def piece_of(options, tls, seconds):
    """How long a turn is. The whole round where the making of connections that are then kept
    would count for much in a shorter one: where they are many, or over TLS, or where latency
    is measured."""
    if options is None:
        return LONG
    is_kept = "--new" not in options
    return seconds if is_kept and (tls or "--rate" in options or 512 in options) else SHORT


def idle(lab, contender, count, tls):
    """KiB for each connection that has had an answer and waits."""
    port = contender.tls if tls else contender.plain
    lab.load(port, "--requests", 1, cookie=contender.cookie, tls=tls)
    time.sleep(3)
    before = contender.pss()
    options = ["--hold", str(count), "--cookie", contender.cookie or "none=none"]
    if tls:
        options += ["--ca", str(lab.folder / "cert.pem")]
    child = lab.start("other", [lab.load_tool, "load", f"127.0.0.1:{port}", *options])
    if not child.stdout.readline():
        raise RuntimeError("the connections were not held")
    time.sleep(5)
    each = (contender.pss() - before) / count
    child.stdin.close()
    child.wait()
    return each


def commands(port):
    """How many commands Redis has run so far."""
    tool = [*need("redis-cli"), "-p", str(port), "info", "commandstats"]
    text = subprocess.run(tool, stdout=subprocess.PIPE, check=True, text=True).stdout
    calls = re.findall(r"cmdstat_(\S+):calls=(\d+)", text)
    return sum(int(count) for name, count in calls if name != "info")


def per_request(lab, contender, redis, count=2000):
    before = commands(redis)
    lab.load(contender.plain, "--connections", 8, "--requests", count, cookie=contender.cookie)
    return (commands(redis) - before) / count


def start_all(lab, redis):
    url = f"redis://127.0.0.1:{redis}"
    uncached = "\nstore.cache.entries = 0\n"
    started = [
        lab.nginx(NGINX),
        lab.cloakroom(REDIS, url),
        lab.cloakroom(UNCACHED, url, more=uncached),
        lab.cloakroom(MEMORY, "memory:"),
        lab.haproxy(HAPROXY),
        lab.nginx(AUTH, check="auth_request /check;"),
        lab.express(EXPRESS, redis),
    ]
    contenders = {(c.name, False): c for c in started}
    contenders |= {(c.name, True): c for c in started if c.tls}
    # The session is the same in both, since they share a store and a secret.
    tls = lab.cloakroom(REDIS, url, tls=True)
    tls.cookie = contenders[REDIS, False].cookie
    contenders[REDIS, True] = tls
    return contenders


def versions(lab):
    def first(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    nginx, haproxy, redis, node, load = need("nginx", "haproxy", "redis-server", "node", "h2load")
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "processor": cpu[1] if cpu else "unknown",
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "cloakroom": f"{first(lab.binary, '--version')} ({head.stdout.strip() or 'no git'})",
        "nginx": first(nginx, "-v"),
        "haproxy": first(haproxy, "-v"),
        "redis": first(redis, "--version").split(" sha")[0],
        "node": first(node, "--version"),
        "h2load": first(load, "--version"),
        "load at the start": os.getloadavg()[0],
    }


def say(text):
    print(f"{time.monotonic():.0f} {text}", file=sys.stderr, flush=True)


def markdown(report):
    found = report["versions"]
    lines = [
        f"Measured on {report['date']}: {report['rounds']} rounds of {report['seconds']} s for each",
        f"proxy and row, in alternating order, all of them started anew after {ROUNDS_OF_ONE},",
        f"on {found['cores']} cores of {found['processor']} (Linux {found['kernel']}).",
        "",
        *(f"- {key}: {value}" for key, value in found.items() if key not in ("processor", "cores", "kernel")),
        "",
        "Processor time for each request ÷ that of nginx in the same round: median (least to",
        "most). nginx: microseconds for each request.",
        "",
    ]
    names = [name for name in ALL if any(name in table for table in report["scenarios"].values())]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for scenario_name, table in report["scenarios"].items():
        cells = []
        for name in names:
            if name not in table:
                cells.append("–")
            elif name == NGINX:
                cells.append(f"{table[name]['cpu_us']:.1f} µs")
            else:
                low, high = table[name]["range"]
                cells.append(f"**{table[name]['ratio']:.2f}** ({low:.2f}–{high:.2f})")
        lines.append(f"| {scenario_name} | " + " | ".join(cells) + " |")
    open_loop = report["scenarios"].get("2 000 a second")
    if open_loop:
        lines += ["", "Latency at 2 000 requests a second, from the moment each was due, in µs:", ""]
        lines += ["| | p50 | p99 |", "|---|---|---|"]
        lines += [f"| {name} | {row['p50']:.0f} | {row['p99']:.0f} |" for name, row in open_loop.items()]
    lines += ["", "Memory (Pss) for each idle connection, in KiB:", "", "| | plain | TLS |", "|---|---|---|"]
    for name, (plain, tls) in report["idle"].items():
        lines.append(f"| {name} | {plain:.1f} | {'–' if tls is None else f'{tls:.1f}'} |")
    lines += ["", "Commands that the store gets for each authenticated request:", ""]
    lines += [f"- {name}: {value:.3f}" for name, value in report["store_commands"].items()]
    return "\n".join(lines) + "\n"


def warm(lab, contenders):
    """What has just been started compiles still, and has asked for little memory yet."""
    for (_, tls), contender in contenders.items():
        port = contender.tls if tls else contender.plain
        lab.load(port, "--connections", 64, "--requests", 5000, cookie=contender.cookie, tls=tls)


def beside(lab, contenders, redis, report, arguments):
    """What needs no rounds: memory of idle connections, and commands of the store."""
    count = 1000 if arguments.quick else 5000
    for name in (NGINX, REDIS, HAPROXY, EXPRESS) if not arguments.only else ():
        plain = idle(lab, contenders[name, False], count, False)
        tls = (name, True) in contenders
        over_tls = idle(lab, contenders[name, True], count, True) if tls else None
        report["idle"][name] = (plain, over_tls)
        say(f"idle: {name}: {plain:.1f} KiB, over TLS {over_tls}")
    for name in (REDIS, UNCACHED, EXPRESS):
        value = per_request(lab, contenders[name, False], redis)
        report["store_commands"][name] = value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="Cloakroom, a release build")
    parser.add_argument("load", help="the load, a release build of bench/hot")
    parser.add_argument("results", help="a folder for the results: latest.md, latest.json")
    parser.add_argument("--docs", help="a page whose table is to be replaced")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--only", default="", help="scenarios with this in their name, and no idle memory")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (2 if arguments.quick else 8)
    seconds = arguments.seconds or (0.5 if arguments.quick else 2)
    report = {
        "date": datetime.date.today().isoformat(),
        "rounds": rounds,
        "seconds": seconds,
        "scenarios": {},
        "idle": {},
        "store_commands": {},
    }
    chosen = [scenario for scenario in SCENARIOS if arguments.only in scenario[0]]
    if not chosen:
        raise SystemExit(f"no scenario has {arguments.only!r} in its name")
    found = {}
    for begin in range(0, rounds, ROUNDS_OF_ONE):
        with Lab(arguments.binary, arguments.load) as lab:
            if begin == 0:
                report["versions"] = versions(lab)
            redis = lab.redis()
            contenders = start_all(lab, redis)
            if begin == 0:
                beside(lab, contenders, redis, report, arguments)
            warm(lab, contenders)
            say(f"from round {begin + 1} on")
            now = min(ROUNDS_OF_ONE, rounds - begin)
            for name, options, tls, names in chosen:
                some = scenario(lab, contenders, name, options, tls, names, now, seconds)
                for contender, results in some.items():
                    found.setdefault(name, {}).setdefault(contender, []).extend(results)
    report["scenarios"] = {name: row(results) for name, results in found.items()}
    results = Path(arguments.results)
    results.mkdir(parents=True, exist_ok=True)
    (results / "latest.json").write_text(json.dumps(report, indent=2) + "\n")
    (results / "latest.md").write_text(markdown(report))
    if arguments.docs:
        put_between(Path(arguments.docs), BEGIN, END, markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    sys.exit(main())
