"""What users get while Redis is dead, and how soon all is as it was: `make bench-outage`.

Many sessions ask at a steady rate, whatever becomes of the requests before. After
a while Redis is killed, and ten seconds later it is started again, with what it has kept
on the disk.
"""

import argparse
import datetime
import json
import os
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

from lab import PASSWORD, Lab, free_port, put_between, signed_in

# Where the figures stand in the page.
BEGIN, END = "<!-- make bench-outage: begin -->\n", "<!-- make bench-outage: end -->\n"

RATE, CONNECTIONS = 500, 64
USERS, SESSIONS = 5, 500
# Seconds: before the kill, without Redis, and afterwards.
BEFORE, OUTAGE, AFTER = 10, 10, 10
# A quantile is one of this many seconds; the level is looked for in steps.
WINDOW, STEP = 0.5, 0.05


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("load")
    parser.add_argument("folder", help="where the samples go")
    parser.add_argument("--docs", help="a page whose figures are to be replaced")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for stale in ("0s", "30s"):
        with Lab(arguments.binary, arguments.load) as lab:
            run = measured(lab, stale)
        name = folder / f"outage-{stale}.json"
        name.write_text(json.dumps(run))
        runs.append(run)
    text = markdown(runs)
    print(text)
    if arguments.docs:
        put_between(Path(arguments.docs), BEGIN, END, text)


def measured(lab, stale):
    """One outage, with this `serve_stale_for`."""
    port = free_port()
    redis = lab.redis_at(port, keeps="yes")
    more = f'\nstore.cache.serve_stale_for = "{stale}"\n'
    proxy = lab.cloakroom("outage", f"redis://127.0.0.1:{port}", more=more, timeout="500ms")
    cookies = sessions(lab, proxy)
    jar = lab.folder / "cookies"
    jar.write_text("\n".join(cookies))
    # So that each is known once.
    lab.load(proxy.plain, "--cookies", jar, "--connections", 1, "--requests", 2 * SESSIONS)
    command = ["taskset", "-c", str(lab.cores["other"]), lab.load_tool, "load"]
    command += [f"127.0.0.1:{proxy.plain}", "--cookies", str(jar), "--samples"]
    command += ["--connections", str(CONNECTIONS), "--rate", str(RATE)]
    command += ["--seconds", str(BEFORE + OUTAGE + AFTER)]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    begun = time.monotonic()
    said = []
    # Its output must not fill up while this sleeps.
    reader = threading.Thread(target=lambda: said.append(asking.stdout.read()))
    reader.start()
    time.sleep(BEFORE)
    dead = time.monotonic() - begun
    redis.kill()
    redis.wait()
    time.sleep(OUTAGE)
    lab.redis_at(port, keeps="yes")
    back = time.monotonic() - begun
    reader.join()
    if asking.wait() != 0:
        raise SystemExit("an answer that nobody may get: see above")
    samples = [tuple(map(int, line.split())) for line in said[0].splitlines()]
    return {
        "stale": stale,
        "dead": dead,
        "back": back,
        "alive": sum(is_alive(proxy, cookie) for cookie in cookies),
        "samples": [(due / 1e6, took / 1e3, status) for due, took, status in samples],
    }


def sessions(lab, proxy):
    """The cookies of all sessions."""
    folder = next(lab.folder.glob("outage-*"))
    for user in range(1, USERS):
        add = [lab.binary, "user", "add", f"user{user}", "--password-stdin", "--file", "users.toml"]
        quiet = subprocess.DEVNULL
        subprocess.run(add, input=PASSWORD.encode(), check=True, cwd=folder, stderr=quiet)
    names = ["alice", *(f"user{user}" for user in range(1, USERS))]
    url = f"http://127.0.0.1:{proxy.plain}/auth/login"
    # The users file is followed; it takes a moment.
    deadline = time.monotonic() + 20
    cookies = []
    while len(cookies) < SESSIONS:
        body = json.dumps({"username": names[len(cookies) % USERS], "password": PASSWORD})
        try:
            cookies.append(signed_in(url, body.encode(), 20))
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    return cookies


def is_alive(proxy, cookie):
    """Whether somebody is signed in with it."""
    url = f"http://127.0.0.1:{proxy.plain}/auth/session"
    request = urllib.request.Request(url, headers={"cookie": cookie})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.status == 200


def quantile(samples, share=0.99):
    """In milliseconds."""
    took = sorted(took for _, took, _ in samples)
    return took[min(int(len(took) * share), len(took) - 1)] if took else float("nan")


def within(samples, start, length):
    return [sample for sample in samples if start <= sample[0] < start + length]


def steps(start, end):
    return [start + STEP * n for n in range(int((end - start) / STEP))]


def markdown(runs):
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    cpu = [l for l in Path("/proc/cpuinfo").read_text().splitlines() if l.startswith("model name")]
    lines = [
        f"Measured on {datetime.date.today()}: a release build with one worker, {SESSIONS} sessions",
        f"of {USERS} users, {RATE} requests a second on {CONNECTIONS} connections, each due at a",
        f"fixed time; `store.timeout` as by default. Redis ({version.split()[2].removeprefix('v=')},",
        f"append-only file) is killed with SIGKILL and started again {OUTAGE} s later.",
        f"{len(os.sched_getaffinity(0))} cores of {cpu[0].partition(': ')[2]}, load {os.getloadavg()[0]:.1f}.",
        "",
    ]
    for run in runs:
        samples, dead, back = run["samples"], run["dead"], run["back"]
        level = max(quantile(within(samples, at, WINDOW)) for at in steps(1, dead - WINDOW))
        good = [
            at for at in steps(back, samples[-1][0] - WINDOW)
            if quantile(within(samples, at, WINDOW)) <= level
        ]
        refused = [due for due, _, status in samples if status != 200]
        late = [due for due in refused if due >= back]
        lines += [
            f"`serve_stale_for = \"{run['stale']}\"`:",
            "",
            "| seconds after the kill | 200 | 503 | others | p50 | p99 | longest |",
            "|---|---|---|---|---|---|---|",
        ]
        for second in range(-2, OUTAGE + 6):
            part = within(samples, dead + second, 1)
            count = [sum(status == wanted for _, _, status in part) for wanted in (200, 503)]
            lines.append(
                f"| {second} to {second + 1} | {count[0]} | {count[1]} | {len(part) - sum(count)} "
                f"| {quantile(part, 0.5):.1f} ms | {quantile(part):.1f} ms | {quantile(part, 1):.1f} ms |"
            )
        soon = f"{1000 * (good[0] - back):.0f} ms after it" if good else "never"
        last = f"{1000 * (late[-1] - back):.0f} ms after it" if late else "none after it"
        lines += [
            "",
            f"- Redis answered again {back - dead:.2f} s after the kill. The last 503: {last}.",
            f"- p99 of {WINDOW} s was {level:.1f} ms at most before the kill, and no more than that {soon}.",
            f"- {len(samples)} requests, {len(refused)} of them 503, none set a cookie; "
            f"{run['alive']} of {SESSIONS} sessions were alive at the end.",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
