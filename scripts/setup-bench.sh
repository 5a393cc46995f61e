#!/usr/bin/env bash
# Installs what `make bench` and `bench/gate` need beside Rust's toolchain, on Debian
# 12 or newer: the proxies that Cloakroom is measured beside, Redis, h2load, the
# packages of the Express proxy, valgrind and strace. Changes nothing where all of it
# is there.
#
#   scripts/setup-bench.sh [gate|train]   gate: only what bench/gate needs; train: only
#                                         what scripts/release.sh needs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
# Debian keeps servers in sbin, which is not on the path of everybody.
have() { PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        fail "root or sudo is needed for: $*"
    fi
}

# Servers are started by what measures them. While they are installed, Debian's own
# switch keeps their services from starting, unless somebody has set it already.
policy=/usr/sbin/policy-rc.d
install_packages() {
    have apt-get || fail "missing: $*. Without apt-get they have to be installed by hand"
    local own_policy=false service
    if [ ! -e "$policy" ]; then
        own_policy=true
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        trap 'as_root rm -f "$policy"' EXIT
    fi
    say "installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    if have systemctl && [ -d /run/systemd/system ]; then
        for service in redis-server nginx haproxy; do
            case " $* " in *" $service"*)
                as_root systemctl disable --quiet "$service.service" || true ;;
            esac
        done
    fi
    if $own_policy; then
        as_root rm -f "$policy"
        trap - EXIT
    fi
}

missing=()
have cc || missing+=(gcc libc6-dev)
have python3 || missing+=(python3)
have openssl || missing+=(openssl)
have taskset || missing+=(util-linux)
have redis-server || missing+=(redis-server)
case "${1:-all}" in all | gate)
    have valgrind || missing+=(valgrind)
    have strace || missing+=(strace) ;;
esac
case "${1:-all}" in all | train)
    have h2load || missing+=(nghttp2-client) ;;
esac
if [ "${1:-all}" = all ]; then
    have redis-cli || missing+=(redis-tools)
    have nginx || missing+=(nginx-light)
    have haproxy || missing+=(haproxy)
    have node || missing+=(nodejs)
    have npm || missing+=(npm)
fi
if [ "${#missing[@]}" -gt 0 ]; then
    install_packages "${missing[@]}"
fi
have cargo || fail "Rust's toolchain is missing: https://rustup.rs"

if [ "${1:-all}" = all ]; then
    # The stamp says that an installation from just this lockfile came to its end.
    app=bench/hot/express
    stamp="$app/node_modules/.installed-lock.json"
    if ! cmp -s "$app/package-lock.json" "$stamp"; then
        say "installing the packages of $app"
        (cd "$app" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null)
        cp "$app/package-lock.json" "$stamp"
    fi
fi
