#!/usr/bin/env bash
# Asks random things of random trees, on the source and through real mounts, and compares each answer:
# tests/model.rs, for as long as one likes. A failure prints the seed with which its round is replayed
# in seconds. At last, that no mount and no process is left.
set -euo pipefail

usage() {
    echo "usage: ci/model.sh SECONDS [--seed N] [--release]" >&2
    [ $# -eq 0 ] || echo "model.sh: $*" >&2
    exit 2
}

help() {
    cat <<'END'
usage: ci/model.sh SECONDS [--seed N] [--release]
  SECONDS    begin rounds for so long, a few seconds each; 0 is one round
  --seed N   begin with the round of this seed [default: from the clock]
  --release  with the optimizations of a release, and without debug assertions
END
    exit 0
}

seconds='' seed='' profile=()
while [ $# -gt 0 ]; do
    case $1 in
        --seed) [ $# -ge 2 ] || usage "$1 needs a value"; seed=$2; shift ;;
        --seed=*) seed=${1#*=} ;;
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
case $seed in *[!0-9]*) usage "--seed is a number, not '$seed'" ;; esac

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"

scratch=$(mktemp -d "${TMPDIR:-/tmp}/copper-model.XXXXXX")
# Some rounds ask as an ordinary user.
chmod 755 "$scratch"
mark="COPPER_TEST_RUN=$scratch"

leave_nothing "$mark" "$scratch"

say "building Copper and the test (minutes the first time)"
in_group cargo build --locked "${profile[@]}" --test model
run=(env "$mark" TMPDIR="$scratch" COPPER_MODEL_SECONDS="$seconds")
[ -z "$seed" ] || run+=(COPPER_SEED="$seed")
# Not with nextest, which ends what takes long.
in_group "${run[@]}" cargo test --locked --quiet "${profile[@]}" --test model -- --nocapture
