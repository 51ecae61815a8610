#!/usr/bin/env bash
# One launcher of ci/launchers.sh, on the first host of the cluster, under Slurm as a job's script. Writes
# a row of the table to row.LAUNCHER and says on standard error what is wrong.
set -euo pipefail

launcher=$1 bare=$2
# What ci/launchers.sh has put into the environment.
: "${work:?}" "${root:?}" "${hosts:?}" "${copper:?}" "${python:?}" "${environment:?}"
result=ok ready_s=- import_s=- stop_s=- view=/tmp/copper-view
PATH=$work/bin-$launcher:$(dirname -- "$copper"):$PATH

problem() { printf 'launchers.sh: %s: %s\n' "$launcher" "$*" >&2; result=failed; }

# $1 seconds after the time $2, as text.
since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }'; }

# A line from every rank: its host and its number, where the launcher gives one.
try_bare() {
    local line rank=0 lines seen
    # shellcheck disable=SC2016
    local say='echo "$(hostname) ${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-${SLURM_PROCID:--}}} ${COPPER_SECRET:-none}"'
    export COPPER_SECRET=known
    case $launcher in
        mpich) lines=$(mpiexec -wdir / -f "$work/hosts" -ppn 1 -n "$hosts" sh -c "$say") ;;
        openmpi) lines=$(mpiexec --wdir / --hostfile "$work/hosts" -N 1 -n "$hosts" -x COPPER_SECRET sh -c "$say" 2>"$work/noise") ;;
        slurm) lines=$(srun --overlap --chdir / --ntasks-per-node=1 --input=none sh -c "$say") ;;
        clush) lines=$(clush -q -N -a "$say") ;;
        ssh)
            lines=$(while read -r line; do ssh -n "$line" "$say" & done <"$work/hosts"; wait)
            ;;
    esac
    seen=$(sort -V <<<"$lines")
    while read -r line; do
        case $launcher in
            clush | ssh) line="$line - none" ;;
            *) line="$line $rank known" ;;
        esac
        grep -qxF -- "$line" <<<"$seen" || problem "no rank said '$line': $(paste -sd, - <<<"$seen")"
        rank=$((rank + 1))
    done <"$work/hosts"
    [ "$(wc -l <<<"$seen")" -eq "$hosts" ] || problem "more than one line for a host: $seen"
}

# numpy by every host's Python at once, all of its bytes, and what `copper status` says.
read_on_all() {
    local from=$EPOCHREALTIME host
    clush -q -S -a "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='$view$environment' '$python' -c '
import numpy
assert numpy.__file__.startswith(\"$view/\"), numpy.__file__
assert int(numpy.arange(10).sum()) == 45'" || problem "numpy could not be imported on every host"
    import_s=$(since "$from")
    clush -q -S -a "'$python' '$root/ci/digest.py' '$view$environment/numpy' '$work/digest.$launcher.'\$(hostname)" ||
        problem "not every host could read all of numpy"
    while read -r host; do
        cmp -s "$work/digest.source" "$work/digest.$launcher.$host" || problem "$host shows another numpy than the source"
    done <"$work/hosts"
    "$copper" status -v "$view" >"$work/status.$launcher" || problem "copper status failed: $(tail -n 1 "$work/status.$launcher")"
}

try_copper() {
    local from=$EPOCHREALTIME left start=("$copper" launch --launcher "$launcher" --hosts "$work/hosts" --net tcp) stop=("$copper" stop)
    # Within a job of Slurm's all of it is known without being told: a command that was documented for
    # the C++ Copper.
    if [ "$launcher" = slurm ]; then
        start=("$root/launcher/launch_copper.sh" -l 2 -t stdout_and_file -T 2 -s 40)
        stop=("$root/launcher/stop_copper.sh")
    fi
    if ! "${start[@]}" --memory 256MiB -v "$view" -d "$work/logs"; then
        problem "copper launch failed"
        return
    fi
    ready_s=$(since "$from")
    read_on_all
    from=$EPOCHREALTIME
    "${stop[@]}" -v "$view" || problem "copper stop failed"
    stop_s=$(since "$from")
    left=$(clush -q -N -a "grep ' fuse' /proc/self/mounts | sed \"s|^|\$(hostname): |\"; pgrep -x copper | sed \"s|^|\$(hostname): process |\"; ls -d '$view' 2>/dev/null | sed \"s|^|\$(hostname): folder |\"")
    [ -z "$left" ] || problem "left behind: $(paste -sd, - <<<"$left")"
}

if [ "$bare" = yes ]; then try_bare; else try_copper; fi
printf '%s %s %s %s %s\n' "$launcher" "$ready_s" "$import_s" "$stop_s" "$result" >"$work/row.$launcher"
[ "$result" = ok ]
