#!/usr/bin/env bash
# Builds the program as it is released, to $CARGO_TARGET_DIR/optimized/cloakroom: twice.
# The first build notes which of its code runs how often while it is driven
# (bench/hot/train.py); with that the compiler lays out the second one. It does the same
# as `cargo build --release`, with a sixth of the instructions less, and less of it in
# the processor's caches.
#
#   scripts/release.sh
#
# Where nothing has changed since, it is not built again.
#
# Needs, beside Rust's toolchain, its component llvm-tools, and what scripts/setup-bench.sh
# train installs: Redis, h2load, Python, OpenSSL.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'release: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

scripts/setup-bench.sh train

host=$(rustc -vV | sed -n 's/^host: //p')
merge=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
if [ ! -x "$merge" ]; then
    say "installing llvm-tools"
    rustup component add llvm-tools >/dev/null \
        || fail "the toolchain's llvm-profdata is missing: rustup component add llvm-tools"
fi

mkdir -p "${CARGO_TARGET_DIR:-target}/optimized"
work=$(cd "${CARGO_TARGET_DIR:-target}/optimized" && pwd)

# What the program is made of, and what drives it.
stamp=$({
    rustc -vV
    find Cargo.toml Cargo.lock src scripts/release.sh bench/hot -type f \
        -not -path '*/node_modules/*' -not -path '*/__pycache__/*' -print0 \
        | sort -z | xargs -0 sha256sum
} | sha256sum | cut -c 1-16)
if [ -x "$work/cloakroom" ] && [ "$(cat "$work/stamp" 2>/dev/null)" = "$stamp" ]; then
    say "$work/cloakroom is as it should be"
    exit
fi

# Flags of others would be lost, or would lose these.
unset RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET
build() {
    CARGO_ENCODED_RUSTFLAGS=$1 cargo build --locked --release --bin cloakroom \
        --target "$host" --target-dir "$work/$2"
    built=$work/$2/$host/release/cloakroom
}

say "the build that takes notes"
rm -rf "$work/notes"
mkdir "$work/notes"
cargo build --locked --release --manifest-path bench/hot/Cargo.toml \
    --target-dir "$work/../bench"
build "-Cprofile-generate=$work/notes" noting
say "driving it"
python3 bench/hot/train.py "$built" "$work/../bench/release/cloakroom-bench"
"$merge" merge -o "$work/notes/all.profdata" "$work"/notes/*.profraw

say "the build that is made by them"
# Cargo does not look at the file: dependencies would stay as other notes made them.
rm -rf "$work/made"
# What runs often, often in part, stands together and apart from all else: less than half a
# megabyte of ten. Arguments are separated by cargo's own separator.
apart=$'\x1f-Cllvm-args=-enable-split-machine-functions'
apart+=$'\x1f-Clink-arg=-Wl,-z,keep-text-section-prefix'
build "-Cprofile-use=$work/notes/all.profdata$apart" made
install "$built" "$work/cloakroom"
printf '%s\n' "$stamp" >"$work/stamp"
say "$work/cloakroom"
