#!/usr/bin/env bash
# Installs what the tests need, beside Rust's toolchain, on Debian 12 or newer:
# Redis, PostgreSQL, Node.js, Chromium, the packages of the test applications, nginx and
# HAProxy (which stand in front), clients, a C++ compiler for the fuzz targets, cargo-deny.
# Says nothing and changes nothing where all of it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Fixed, so that a new version cannot turn the checks red by itself.
cargo_deny_version=0.20.2

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

# Packages start their services when they are installed. The tests start Redis,
# PostgreSQL, nginx and HAProxy by themselves, so for the length of the installation
# services are told not to start: by the file that Debian provides for that, unless
# there is one already.
policy=/usr/sbin/policy-rc.d
install_packages() {
    have apt-get || fail "missing: $*. Without apt-get they have to be installed by hand"
    local own_policy=false service services=()
    if [ ! -e "$policy" ]; then
        own_policy=true
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        trap 'as_root rm -f "$policy"' EXIT
    fi
    case " $* " in *" redis-server "*) services+=(redis-server) ;; esac
    case " $* " in *" postgresql "*) services+=(postgresql) ;; esac
    case " $* " in *" nginx-light "*) services+=(nginx) ;; esac
    case " $* " in *" haproxy "*) services+=(haproxy) ;; esac

    say "installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null

    # Nor at the next boot.
    if have systemctl && [ -d /run/systemd/system ]; then
        for service in "${services[@]}"; do
            as_root systemctl disable --quiet "$service.service" || true
        done
    fi
    if $own_policy; then
        as_root rm -f "$policy"
        trap - EXIT
    fi
}

missing=()
have cc || missing+=(gcc libc6-dev)
have c++ || missing+=(g++)
have make || missing+=(make)
have curl || missing+=(curl ca-certificates)
have redis-server || missing+=(redis-server)
# Debian keeps its programs in a folder for each version.
[ -n "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || have initdb || missing+=(postgresql)
have nginx || missing+=(nginx-light)
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing+=(libnginx-mod-stream)
have haproxy || missing+=(haproxy)
have h2load || missing+=(nghttp2-client)
have python3 || missing+=(python3)
# Packages of Debian's own Python, whatever python3 is on the path.
for module in requests httpx h2; do
    /usr/bin/python3 -c "import $module" 2>/dev/null || missing+=("python3-$module")
done
have node || missing+=(nodejs)
have npm || missing+=(npm)
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium fonts-liberation)
if [ "${#missing[@]}" -gt 0 ]; then
    install_packages "${missing[@]}"
fi

node_major=$(node -p 'process.versions.node.split(".")[0]')
[ "$node_major" -ge 18 ] || fail "Node.js 18 or newer is needed, this is $(node --version)"

# npm leaves a copy of the lockfile in node_modules. The own stamp says that an
# installation from just this lockfile came to its end.
for app in tests/apps/express tests/apps/sharing tests/apps/browser tests/apps/grpc tests/apps/clients \
    tests/apps/sockets; do
    stamp="$app/node_modules/.installed-lock.json"
    if ! cmp -s "$app/package-lock.json" "$stamp"; then
        say "installing the packages of $app"
        (cd "$app" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null)
        cp "$app/package-lock.json" "$stamp"
    fi
done

have cargo || fail "Rust's toolchain is missing: https://rustup.rs"
for component in clippy rustfmt; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
    have rustup || fail "cargo ${component} is missing"
    say "installing ${component}"
    rustup component add "$component" >/dev/null
done

# All packages of the lockfile, those of other platforms too: cargo-deny looks
# at every one of them, without a network.
cargo fetch --quiet --locked
cargo fetch --quiet --locked --manifest-path fuzz/Cargo.toml

# Without optimisation it is built in a quarter of the time, and the check still
# takes but a second or two.
if ! cargo deny --version >/dev/null 2>&1; then
    say "building cargo-deny $cargo_deny_version (a few minutes, once)"
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug \
        "cargo-deny@$cargo_deny_version"
fi
