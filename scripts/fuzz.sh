#!/usr/bin/env bash
# Builds every fuzz target and runs each of them for a bounded time, with
# libFuzzer on the stable toolchain: its instrumentation is a pass of LLVM's
# that rustc can be told to run; only the sanitizers need a nightly.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]     default: 60 s for each target
#   scripts/fuzz.sh ci [TARGET...]            so many inputs, however long it takes
#
# CLOAKROOM_FUZZ_SEED makes a run repeatable (default: a new seed each time, which
# libFuzzer prints). With `ci` it is 1, and nothing that earlier runs found is used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
[ "$#" -gt 0 ] && shift
if [ "$#" -gt 0 ]; then
    targets=("$@")
else
    targets=()
    for file in fuzz/fuzz_targets/*.rs; do
        targets+=("$(basename "$file" .rs)")
    done
fi

host=$(rustc -vV | sed -n 's/^host: //p')
build=${CARGO_TARGET_DIR:-$PWD/target}

# As cargo-fuzz sets them. Given with --target, they do not reach build scripts
# and macros, which the other builds in this folder have made already.
RUSTFLAGS="-Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg fuzzing"
RUSTFLAGS=$(tr -s ' \n' ' ' <<<"$RUSTFLAGS") \
    cargo build --locked --manifest-path fuzz/Cargo.toml \
    --target "$host" --target-dir "$build" --bins

# How many inputs are enough where time does not count. The committed ones are
# among them. One of `smuggle` is a connection, and takes about 2 ms.
inputs() {
    case $1 in
    smuggle) echo 2000 ;;
    *) echo 5000 ;;
    esac
}

# One target: its committed seeds, and what earlier runs found.
run() {
    local target=$1 found="$build/fuzz/$1" log="$build/fuzz/$1.log" options
    local seed=${CLOAKROOM_FUZZ_SEED:-}
    options=(-timeout=30 -rss_limit_mb=2048
        -max_len=4096 -artifact_prefix="fuzz/artifacts/$target-"
        -print_final_stats=1 -verbosity=1)
    if [ "$seconds" = ci ]; then
        found="$build/fuzz/ci/$target" seed=1
        rm -rf "$found"
        # The time is a bound for what hangs, and no machine is that slow.
        options+=(-runs="$(inputs "$target")" -max_total_time=600)
    else
        options+=(-max_total_time="$seconds")
    fi
    mkdir -p "$found" fuzz/artifacts
    [ -z "$seed" ] || options+=(-seed="$seed")
    [ ! -e "fuzz/dictionaries/$target.txt" ] || options+=(-dict="fuzz/dictionaries/$target.txt")
    if "$build/$host/debug/$target" "${options[@]}" "$found" "fuzz/corpus/$target" >"$log" 2>&1; then
        printf 'fuzz: %-12s %s\n' "$target" "$(
            sed -n 's/^stat::number_of_executed_units: */executions /p;
                s/^INFO: Seed: */seed /p' "$log" | paste -sd ' '
        )"
    else
        printf 'fuzz: %s FAILED; the whole output is in %s\n' "$target" "$log"
        grep -v '^#' "$log" | tail -n 60
        return 1
    fi
}
export -f inputs run
export build host seconds

# Side by side, one for each processor; every one is run even if one fails.
printf '%s\n' "${targets[@]}" |
    xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'run {}'
