"""Drives a program that notes which of its code runs how often, for scripts/release.sh.

Every kind of request that is measured, over loopback: sessions in
memory, in Redis, and with Redis asked each time; plaintext, TLS, HTTP/2.
"""

import argparse
import os
import sys

from lab import Lab
from measure import SCENARIOS, once

# Requests for each kind; few where each is much work.
COUNT, FEW = 20_000, 2_000

# Seconds for a program to end.
PATIENCE = 60


def options_of(options, over_tls):
    """Those of the load, without what depends on time."""
    if "--rate" in options:
        return None
    is_much = "/1048576" in options or (over_tls and "--new" in options)
    many = FEW if is_much else COUNT
    return [*options, "--requests", many]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="Cloakroom, built to be trained")
    parser.add_argument("load", help="the load, a build of bench/hot")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with Lab(arguments.binary, arguments.load, cores[0], cores[-1]) as lab:
        url = f"redis://127.0.0.1:{lab.redis()}"
        plain = [
            lab.cloakroom("redis", url),
            lab.cloakroom("memory", "memory:"),
            lab.cloakroom("asked", url, more="\nstore.cache.entries = 0\n"),
        ]
        tls = lab.cloakroom("redis over TLS", url, tls=True)
        # They share a store and a secret.
        tls.cookie = plain[0].cookie
        for name, options, over_tls, _ in SCENARIOS:
            for contender in [tls] if over_tls else plain:
                print(f"train: {name}: {contender.name}", file=sys.stderr, flush=True)
                if options is None:
                    once(lab, contender, None, True, 1)
                elif counted := options_of(options, over_tls):
                    port = contender.tls if over_tls else contender.plain
                    lab.load(port, *counted, cookie=contender.cookie, tls=over_tls)
        for contender in [*plain, tls]:
            # It writes its notes when it ends, and not when it is killed.
            contender.process.terminate()
            if code := contender.process.wait(PATIENCE):
                raise SystemExit(f"train: {contender.name} ended with {code}")


if __name__ == "__main__":
    sys.exit(main())
