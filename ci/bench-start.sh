#!/usr/bin/env bash
# How long jobs of 4 to 64 ranks on this machine take to start and to stop with files open in every
# view, and what the ranks say to each other meanwhile. About two minutes. Installs what is missing,
# builds, prints a table and two figures with their bars, and fails if a bar is not kept.
set -euo pipefail

usage() {
    echo "usage: ci/bench-start.sh [--rounds N] [--ranks N,N…]" >&2
    [ $# -eq 0 ] || echo "bench-start.sh: $*" >&2
    exit 2
}

rounds=3 ranks=4,8,16,64
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --ranks) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --rounds) rounds=$2; shift ;;
        --ranks) ranks=$2; shift ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done
case $rounds in [1-9] | [1-9][0-9]) ;; *) usage "--rounds is 1 to 99, not '$rounds'" ;; esac
[[ $ranks =~ ^[1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*$ ]] || usage "--ranks is a list of numbers, not '$ranks'"

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-start.XXXXXX")
mark="COPPER_RUN_DIR=$work/run"
leave_nothing "$mark" "$work"

say "building (minutes the first time)"
in_group cargo build --release --locked --package copper
mkdir -p "$work/run" "$work/logs"
chmod 700 "$work/run"
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg)"
in_group env "$mark" python3 benches/start.py --copper "$target/release/copper" --work "$work" \
    --rounds "$rounds" --ranks "$ranks"
