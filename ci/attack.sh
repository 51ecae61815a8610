#!/usr/bin/env bash
# Knocks at every port of a running job of four ranks, without its secret, while files are read for the
# first time, and prints how long that takes beside the same without an attack, in pairs, with the bar
# 1.5; that no descriptor, thread or memory is left to the daemons: tests/attack.rs.
set -euo pipefail

usage() {
    echo "usage: ci/attack.sh [--connections N] [--rate N] [--files N] [--pairs N]" >&2
    [ $# -eq 0 ] || echo "attack.sh: $*" >&2
    exit 2
}

connections=100000 rate=2000 files=2000 pairs=5
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage "$1 is no option, or needs a value"
    case $2 in '' | 0 | *[!0-9]*) usage "$1 takes a number of at least 1, not '$2'" ;; esac
    case $1 in
        --connections) connections=$2 ;;
        --rate) rate=$2 ;;
        --files) files=$2 ;;
        --pairs) pairs=$2 ;;
        *) usage "there is no option $1" ;;
    esac
    shift 2
done

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"

scratch=$(mktemp -d "${TMPDIR:-/tmp}/copper-attack.XXXXXX")
mark="COPPER_TEST_RUN=$scratch"

leave_nothing "$mark" "$scratch"

say "building Copper and the test (minutes the first time)"
in_group cargo build --locked --test attack
run=(env "$mark" TMPDIR="$scratch" COPPER_ATTACK_CONNECTIONS="$connections" COPPER_ATTACK_RATE="$rate"
    COPPER_ATTACK_FILES="$files" COPPER_ATTACK_PAIRS="$pairs" COPPER_ATTACK_BAR=1.5)
in_group "${run[@]}" cargo test --locked --quiet --test attack -- --nocapture
