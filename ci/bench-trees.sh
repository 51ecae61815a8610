#!/usr/bin/env bash
# What several trees are worth: a file of 256 MiB read by all of four ranks at once, from a source whose
# bandwidth is limited for each reader of it, with -T 2 and with -T 1. Takes root (for a loop device and
# control groups) and about two minutes. Installs what is missing, builds, prints the ratio with its bar,
# and fails if the bar is not kept.
set -euo pipefail

usage() {
    echo "usage: ci/bench-trees.sh [--pairs N] [--rate MIB_PER_SECOND] [--json FILE]" >&2
    [ $# -eq 0 ] || echo "bench-trees.sh: $*" >&2
    exit 2
}

pairs=3 rate=24 json=''
while [ $# -gt 0 ]; do
    case $1 in
        --pairs | --rate | --json) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --pairs) pairs=$2; shift ;;
        --rate) rate=$2; shift ;;
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
    [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) ;;
    *) usage "--rate is 1 to 999 MiB a second, not '$rate'" ;;
esac
case $json in '' | /*) ;; *) json=$PWD/$json ;; esac
# Before anything is made: without root nothing can be.
[ "$(id -u)" -eq 0 ] || { echo "bench-trees.sh: loop devices and control groups take root" >&2; exit 1; }

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"
packages=(e2fsprogs mount)
! command -v dpkg-query >/dev/null || install_packages

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-trees.XXXXXX")
# In memory, so that nothing but the limit limits the source.
image=$(mktemp /dev/shm/copper-trees.XXXXXX)
mark="COPPER_RUN_DIR=$work/run"
device='' groups=''

remove_own() {
    local group
    ! mountpoint -q "$work/source" || umount "$work/source" || return 1
    [ -z "$device" ] || losetup --detach "$device" || return 1
    rm -f "$image"
    for group in "$groups"/copper-trees-$$-*; do
        [ ! -d "$group" ] || rmdir "$group" || return 1
    done
}
leave_nothing "$mark" "$work"

say "building (minutes the first time)"
in_group cargo build --release --locked --package copper
mkdir -p "$work/run" "$work/logs" "$work/source"
chmod 700 "$work/run"
if grep -qw io /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
    groups=/sys/fs/cgroup
    grep -qw io "$groups/cgroup.subtree_control" || echo +io >"$groups/cgroup.subtree_control"
elif [ -d /sys/fs/cgroup/blkio ]; then
    groups=/sys/fs/cgroup/blkio
else
    die "this kernel has no control group that limits reads of a device"
fi
truncate --size 320M "$image"
mkfs.ext4 -q -E lazy_itable_init=0 "$image"
device=$(losetup --find --show "$image")
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $rate MiB/s for each reader"

in_group env "$mark" python3 benches/trees.py --copper "$target/release/copper" --work "$work" \
    --device "$device" --groups "$groups" --prefix "copper-trees-$$" --mib 256 --pairs "$pairs" \
    --rate "$rate" ${json:+--json "$json"}
