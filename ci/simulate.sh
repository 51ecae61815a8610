#!/usr/bin/env bash
# Simulates jobs of random shapes and faults from fresh seeds, for as long as one likes: every run checks what
# must be true of it. The first that breaks it ends this, with the command that replays it.
set -euo pipefail

usage() {
    echo "usage: ci/simulate.sh SECONDS [--seed N]" >&2
    [ $# -eq 0 ] || echo "simulate.sh: $*" >&2
    exit 2
}

help() {
    cat <<'END'
usage: ci/simulate.sh SECONDS [--seed N]
  SECONDS   begin runs for so long: by turns 1,000 small jobs and a large one, some seconds each; 0 is one turn
  --seed N  begin with this one, then count [default: from the clock]
END
    exit 0
}

seconds='' seed=''
while [ $# -gt 0 ]; do
    case $1 in
        --seed) [ $# -ge 2 ] || usage "$1 needs a value"; seed=$2; shift ;;
        --seed=*) seed=${1#*=} ;;
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
cd "$root"

say "building Copper (minutes the first time)"
cargo build --locked --quiet --release --package copper

# The shape of a run follows from its seed alone: `state` is its generator's, Knuth's MMIX.
draw() { state=$((state * 6364136223846793005 + 1442695040888963407)) drawn=$(((state >> 33 & 0x3fffffff) % $1)); }
pick() { draw $#; shift "$drawn"; picked=$1; }

seed=${seed:-$(date +%s)}
small=1000 runs=0 end=$((SECONDS + seconds))
while [ "$runs" -eq 0 ] || [ "$SECONDS" -lt "$end" ]; do
    state=$((seed * 0x9e3779b97f4a7c15)) && draw 1
    pick 6 6 16 16 80 && draw "$picked" && nodes=$((2 + drawn))
    draw $((nodes < 4 ? nodes : 4)) && shape=(--nodes "$nodes" --trees $((1 + drawn)))
    draw 8 && shape+=(--fanout $((1 + drawn)))
    pick 1 2 12 && shape+=(--processes "$picked")
    pick 32MiB 128MiB 2GiB 2GiB && shape+=(--memory "$picked")
    pick 0 0 1 10 30 && shape+=(--kill "$picked" --seed "$seed")
    pick 0 50 && shape+=(--comeback "$picked")
    pick 0 0 10 && shape+=(--slow "$picked")
    pick 0 0 10 && shape+=(--cut "$picked")
    pick 0 0 50 5000 && shape+=(--jitter "$picked")
    if ! output=$("$target/release/copper" simulate "${shape[@]}" 2>&1); then
        printf '%s\n' "$output" >&2
        die "replay it with: copper simulate ${shape[*]}"
    fi
    output=$("$target/release/copper" simulate --seeds "$small" --seed "$seed" 2>&1) || die "$output"
    runs=$((runs + 1 + small)) seed=$((seed + small))
done
say "$runs runs, no invariant broken; the last seed was $((seed - 1))"
