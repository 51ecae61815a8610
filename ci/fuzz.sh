#!/usr/bin/env bash
# Tries everything that takes bytes from outside (tests/fuzzing/targets.rs) under libFuzzer, which follows
# the code that an input reaches: first with a planted bug, which must be found, then for SECONDS each
# [default: 60] without, in bounded memory. Works with stable Rust, of which it takes unstable options,
# and a compiler for C++. tests/fuzzing.rs does the same in seconds without either.
set -euo pipefail

if [ $# -gt 1 ]; then
    echo "usage: ci/fuzz.sh [SECONDS]" >&2
    exit 2
fi
seconds=${1:-60}
case $seconds in
    '' | 0 | *[!0-9]*)
        echo "usage: ci/fuzz.sh [SECONDS], a number of at least 1, not '$seconds'" >&2
        exit 2
        ;;
esac

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/copper-fuzz.XXXXXX")
mark="COPPER_FUZZ_RUN=$scratch"
leave_nothing "$mark" "$scratch"

machine=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
say "building (a minute the first time)"
in_group env RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage -Ccodegen-units=1" CARGO_TARGET_DIR="$target/fuzzing" \
    cargo build --quiet --release --target "$machine" --manifest-path tests/fuzzing/coverage/Cargo.toml
program=$target/fuzzing/$machine/release/copper-fuzzing

# Runs one target; what it prints goes to a file.
try() {
    local name=$1 bound=$2
    shift 2
    rm -rf "$scratch/corpus"
    mkdir "$scratch/corpus"
    # The same secret each time: what is found can be tried again.
    in_group env "$mark" COPPER_SECRET="$(printf '5%.0s' {1..64})" COPPER_FUZZ_TARGET="$name" \
        COPPER_FUZZ_CORPUS="$scratch/corpus" "$@" "$program" -max_total_time="$bound" -max_len=8192 \
        -timeout=10 -rss_limit_mb=512 -artifact_prefix="$scratch/" "$scratch/corpus" >"$scratch/output" 2>&1
}

for name in wire control frames handshake directory "extended attributes" "data ranges"; do
    if try "$name" 120 COPPER_FUZZ_PLANTED=1 || ! grep -q planted "$scratch/output"; then
        tail -n 20 "$scratch/output" >&2
        die "$name: the planted bug is not found"
    fi
    say "$name: found, as it should be: the planted bug"
    rm -f "$scratch"/crash-*
    try "$name" "$seconds" || {
        tail -n 40 "$scratch/output" >&2
        die "$name fails; the input is the one that is named above, in base64"
    }
    say "$name: $(grep '^Done' "$scratch/output"), $(grep -o 'rss: [0-9]*Mb' "$scratch/output" | tail -n 1)"
done
