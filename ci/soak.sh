#!/usr/bin/env bash
# Reads at random, through every rank, ten times what its memory holds, for as long as one likes, and
# compares each byte with the source: tests/soak.rs. That no daemon takes more memory than its limit
# and 64 MiB, that nothing is under way at last, and that no mount and no process is left.
set -euo pipefail

usage() {
    echo "usage: ci/soak.sh SECONDS [--ranks N] [--seed N] [--release]" >&2
    [ $# -eq 0 ] || echo "soak.sh: $*" >&2
    exit 2
}

help() {
    cat <<'END'
usage: ci/soak.sh SECONDS [--ranks N] [--seed N] [--release]
  SECONDS    read for so long
  --ranks N  through so many ranks [default: 8]
  --seed N   with these random choices [default: from the clock]
  --release  with the optimizations of a release, and without debug assertions
END
    exit 0
}

seconds='' seed='' ranks=8 profile=()
while [ $# -gt 0 ]; do
    case $1 in
        --seed) [ $# -ge 2 ] || usage "$1 needs a value"; seed=$2; shift ;;
        --seed=*) seed=${1#*=} ;;
        --ranks) [ $# -ge 2 ] || usage "$1 needs a value"; ranks=$2; shift ;;
        --ranks=*) ranks=${1#*=} ;;
        --release) profile=(--release) ;;
        -h | --help) help ;;
        -*) usage "there is no option $1" ;;
        *) [ -z "$seconds" ] || usage "one number of seconds, not '$seconds' and '$1'"; seconds=$1 ;;
    esac
    shift
done
case $seconds in
    '') usage "how many seconds?" ;;
    *[!0-9]*) usage "SECONDS is a number, not '$seconds'" ;;
esac
case $ranks in '' | 0 | *[!0-9]*) usage "--ranks is a number of at least 1, not '$ranks'" ;; esac
case $seed in *[!0-9]*) usage "--seed is a number, not '$seed'" ;; esac

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"

scratch=$(mktemp -d "${TMPDIR:-/tmp}/copper-soak.XXXXXX")
mark="COPPER_TEST_RUN=$scratch"

leave_nothing "$mark" "$scratch"

say "building Copper and the test (minutes the first time)"
in_group cargo build --locked "${profile[@]}" --test soak
run=(env "$mark" TMPDIR="$scratch" COPPER_SOAK_SECONDS="$seconds" COPPER_SOAK_RANKS="$ranks")
[ -z "$seed" ] || run+=(COPPER_SEED="$seed")
# Not with nextest, which ends what takes long.
in_group "${run[@]}" cargo test --locked --quiet "${profile[@]}" --test soak random_reads -- --nocapture
