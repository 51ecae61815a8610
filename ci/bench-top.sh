#!/usr/bin/env bash
# What `copper top` costs on 64 ranks of this machine, itself and the ranks that it asks, in pairs of windows
# with and without it; and how many lines the ranks have logged at -l 3. About six minutes. Installs what is
# missing, builds, prints the figures with their bars, and fails if a bar is not kept.
set -euo pipefail

usage() {
    echo "usage: ci/bench-top.sh [--rounds N] [--ranks N] [--seconds N]" >&2
    [ $# -eq 0 ] || echo "bench-top.sh: $*" >&2
    exit 2
}

rounds=5 ranks=64 seconds=30
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --ranks | --seconds) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --rounds) rounds=$2; shift ;;
        --ranks) ranks=$2; shift ;;
        --seconds) seconds=$2; shift ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done
case $rounds in [1-9] | [1-9][0-9]) ;; *) usage "--rounds is 1 to 99, not '$rounds'" ;; esac
[[ $ranks =~ ^[1-9][0-9]{0,2}$ ]] || usage "--ranks is 1 to 999, not '$ranks'"
[[ $seconds =~ ^[1-9][0-9]{0,2}$ ]] || usage "--seconds is 1 to 999, not '$seconds'"

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-top.XXXXXX")
mark="COPPER_RUN_DIR=$work/run"
leave_nothing "$mark" "$work"

say "building (minutes the first time)"
in_group cargo build --release --locked --package copper
mkdir -p "$work/run" "$work/logs"
chmod 700 "$work/run"
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg)"
in_group env "$mark" python3 benches/top.py --copper "$target/release/copper" --work "$work" \
    --rounds "$rounds" --ranks "$ranks" --seconds "$seconds"
