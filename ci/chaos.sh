#!/usr/bin/env bash
# Faults at random on a cluster of namespaces (ci/cluster.sh) while readers on every host compare each
# byte: daemons killed, stopped and brought back, a host that fails, links cut and slowed, full disks,
# source files cut short and replaced, and at last the death of the root. Nobody may get other bytes, wait
# for longer than a minute, or get an errno that no fault explains, and nothing may be left. Takes root.
set -euo pipefail

usage() {
    echo "usage: ci/chaos.sh SECONDS|--figures [--seed N] [--hosts N] [--release] [--program FILE]" >&2
    [ $# -eq 0 ] || echo "chaos.sh: $*" >&2
    exit 2
}

help() {
    cat <<'HELP'
usage: ci/chaos.sh SECONDS|--figures [--seed N] [--hosts N] [--release] [--program FILE]
  SECONDS         inject faults for so long
  --figures       measure instead what the death of the parent, and of the root, adds to a read of 256 MiB
  --seed N        the same faults as another run [default: from the clock]; what they meet differs
  --hosts N       on so many hosts, 2 to 64 [default: 8]
  --release       with the optimizations of a release, and without debug assertions
  --program FILE  with this copper; nothing is built
environment:
  COPPER_CHAOS_KEEP  a folder: logs of a run that fails are copied there
HELP
    exit 0
}

seconds='' seed='' hosts=8 profile=() kind=debug program='' driver=chaos.py
while [ $# -gt 0 ]; do
    case $1 in
        --seed | --hosts | --program) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --seed) seed=$2; shift ;;
        --hosts) hosts=$2; shift ;;
        --program) program=$2; shift ;;
        --figures) driver=chaos-figures.py seconds=${seconds:-1} ;;
        --release) profile=(--release) kind=release ;;
        -h | --help) help ;;
        -*) usage "there is no option $1" ;;
        *) [ -z "$seconds" ] || usage "one number of seconds, not '$seconds' and '$1'"; seconds=$1 ;;
    esac
    shift
done
[[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || usage "SECONDS is a number, not '$seconds'"
[[ $hosts =~ ^[1-9][0-9]?$ && $hosts -ge 2 && $hosts -le 64 ]] || usage "--hosts is 2 to 64, not '$hosts'"
case $seed in '') seed=$(date +%N); seed=$((10#$seed)) ;; *[!0-9]*) usage "--seed is a number, not '$seed'" ;; esac
[ "$(id -u)" -eq 0 ] || { echo "chaos.sh: namespaces take root: run it as root or with sudo" >&2; exit 2; }

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"
[ "$driver" != chaos.py ] || say "seed $seed: repeat with ci/chaos.sh $seconds --seed $seed --hosts $hosts"

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-chaos.XXXXXX")
export COPPER_CLUSTER_DIR=$work/cluster
remove_own() {
    [ "$1" -eq 0 ] || [ -z "${COPPER_CHAOS_KEEP:-}" ] || cp -a "$work/logs" "$work/readers" "$COPPER_CHAOS_KEEP"
    ci/cluster.sh down
}
leave_nothing "COPPER_CHAOS=$work" "$work"

if [ -z "$program" ]; then
    say "building (minutes the first time)"
    in_group cargo build --locked "${profile[@]}" --package copper
    program=$target/$kind/copper
fi
in_group ci/cluster.sh up "$hosts" --share "$work" --share "$(dirname -- "$program")"
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $hosts hosts, $kind"
in_group env "COPPER_CHAOS=$work" /usr/bin/python3 -B "ci/$driver" --work "$work" --cluster "$root/ci/cluster.sh" \
    --copper "$program" --seconds "$seconds" --seed "$seed" --hosts "$hosts" || {
    code=$?
    # Whatever went wrong, all that runs on the hosts ends with them.
    ci/cluster.sh down
    exit "$code"
}
