#!/usr/bin/env bash
# What depth costs: a file of 256 MiB that nobody has read, read on the last rank of a chain of depth 4
# and at depth 1, by dd and by a mapping, each rank in a network namespace whose link is limited. Takes
# root (for the namespaces) and about three minutes. Installs what is missing, builds, prints the ratios
# with their bar, and fails if the bar is not kept.
set -euo pipefail

usage() {
    echo "usage: ci/bench-chain.sh [--pairs N] [--rate MBIT] [--only dd|mmap] [--json FILE]" >&2
    [ $# -eq 0 ] || echo "bench-chain.sh: $*" >&2
    exit 2
}

pairs=5 rate=500 only='' json=''
while [ $# -gt 0 ]; do
    case $1 in
        --pairs | --rate | --only | --json) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --pairs) pairs=$2; shift ;;
        --rate) rate=$2; shift ;;
        --only) only=$2; shift ;;
        --json) json=$2; shift ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done
case $pairs in
    [1-9] | [1-5][0-9]) ;;
    *) usage "--pairs is 1 to 59, not '$pairs'" ;;
esac
case $rate in
    [1-9][0-9] | [1-9][0-9][0-9] | [1-9][0-9][0-9][0-9]) ;;
    *) usage "--rate is 10 to 9999 megabits a second, not '$rate'" ;;
esac
case $only in
    '' | dd | mmap) ;;
    *) usage "--only is dd or mmap, not '$only'" ;;
esac
case $json in '' | /*) ;; *) json=$PWD/$json ;; esac
# Before anything is made: without root nothing can be.
[ "$(id -u)" -eq 0 ] || { echo "bench-chain.sh: network namespaces take root" >&2; exit 1; }

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"
packages=(iproute2 util-linux)
! command -v dpkg-query >/dev/null || install_packages

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-chain.XXXXXX")
# In memory, so that the source is not what limits.
data=$(mktemp -d /dev/shm/copper-chain.XXXXXX)
mark="COPPER_RUN_DIR=$work/run"
# Of this run alone: what lies in them goes by their names.
prefix=copper-chain-$$

remove_own() {
    local name
    [ "$1" -eq 0 ] || tail -n 3 "$work"/logs/*.log >&2 2>/dev/null || true
    # With the namespaces of this run go their links and the bridge.
    while read -r name _; do
        case $name in "$prefix"-*) ip netns delete "$name" || true ;; esac
    done < <(ip netns list)
    rm -rf --one-file-system "$data"
}
leave_nothing "$mark" "$work"

say "building (minutes the first time)"
in_group cargo build --release --locked --package copper
mkdir -p "$work/run" "$work/logs"
chmod 700 "$work/run"
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), links of $rate Mbit/s"

in_group env "$mark" python3 benches/chain.py --copper "$target/release/copper" --data "$data" \
    --work "$work" --prefix "$prefix" --memory 640MiB --mib 256 --pairs "$pairs" --rate "$rate" \
    ${only:+--only "$only"} ${json:+--json "$json"}
