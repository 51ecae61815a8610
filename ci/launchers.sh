#!/usr/bin/env bash
# Each launcher on a cluster of namespaces (ci/cluster.sh): launches Copper on all hosts by it, imports
# numpy on all of them at once through the mounts, compares every byte of numpy with the source, stops,
# and looks for what is left. With --bare it tries the launchers alone, without Copper: whether this
# cluster is sound, and what a launcher tells its ranks. Takes root. Installs what is missing, builds,
# prints a table, and fails if a launcher does. Nothing of it stays but the build and the packages.
set -euo pipefail

known=(mpich openmpi clush ssh slurm)

usage() {
    echo "launchers.sh: $*; see ci/launchers.sh --help" >&2
    exit 2
}

help() {
    cat <<'END'
usage: ci/launchers.sh [--hosts N] [--only LAUNCHER]… [--bare]
  --hosts N        hosts of the cluster, 2 to 64 [default: 8]
  --only LAUNCHER  one of mpich, openmpi, clush, ssh, slurm; may be given several times [default: all].
                   PALS is on no machine but Cray's, and is not tried here
  --bare           each launcher alone: does it reach every host once, in the host file's order?
environment:
  COPPER_DEMO_DIR   where numpy is installed [default: .demo in the checkout]
  CARGO_TARGET_DIR  where Cargo builds [default: target in the checkout]
END
    exit 0
}

hosts=8 bare=no only=()
while [ $# -gt 0 ]; do
    case $1 in
        --hosts | --only) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --hosts) hosts=$2; shift ;;
        --only)
            case " ${known[*]} " in *" $2 "*) ;; *) usage "--only is one of ${known[*]}, not '$2'" ;; esac
            only+=("$2")
            shift
            ;;
        --bare) bare=yes ;;
        -h | --help) help ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done
[[ $hosts =~ ^[1-9][0-9]?$ && $hosts -ge 2 && $hosts -le 64 ]] || usage "--hosts is 2 to 64, not '$hosts'"
[ ${#only[@]} -gt 0 ] || only=("${known[@]}")
[ "$(id -u)" -eq 0 ] || { echo "launchers.sh: namespaces take root: run it as root or with sudo" >&2; exit 2; }

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
# shellcheck source=ci/environment.sh
. "$root/ci/environment.sh"
environment=${COPPER_DEMO_DIR:-$root/.demo}
case $environment in /*) ;; *) environment=$PWD/$environment ;; esac
cd "$root"

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-launchers.XXXXXX")
export COPPER_CLUSTER_DIR=$work/cluster
remove_own() { ci/cluster.sh down; [ -z "$part" ] || rm -rf "$part"; }
leave_nothing "COPPER_LAUNCHERS=$work" "$work"

find_python
copper=$target/release/copper
if [ "$bare" = no ]; then
    say "building (minutes the first time)"
    in_group cargo build --release --locked --package copper
    install_environment "$environment"
    "$python" ci/digest.py "$environment/numpy" "$work/digest.source"
fi

# Each by the name that its users type. Not as a link: MPICH looks for its parts where it is called.
mkdir -p "$work/bin-mpich" "$work/bin-openmpi"
for launcher in mpich openmpi; do
    for name in mpiexec mpirun; do
        printf '#!/bin/sh\nexec /usr/bin/%s.%s "$@"\n' "$name" "$launcher" >"$work/bin-$launcher/$name"
        chmod 755 "$work/bin-$launcher/$name"
    done
done

start_cluster() {
    local shares=(--share "$work")
    [ "$bare" = yes ] || shares+=(--share "$environment")
    in_group ci/cluster.sh up "$hosts" --slurm --mpi "${shares[@]}"
    ci/cluster.sh hosts >"$work/hosts"
}

start_cluster
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $hosts hosts"
failed=0 again=no
for launcher in "${only[@]}"; do
    if [ "$again" = yes ]; then
        ci/cluster.sh down
        start_cluster
        again=no
    fi
    job=("$root/ci/launchers-job.sh" "$launcher" "$bare")
    [ "$launcher" != slurm ] || job=(sbatch --quiet --wait --nodes "$hosts" --output "$work/slurm.out" "${job[@]}")
    if ! in_group timeout 300 env "COPPER_LAUNCHERS=$work" work="$work" root="$root" hosts="$hosts" copper="$copper" \
        python="$python" environment="$environment" ci/cluster.sh exec node0 "${job[@]}"; then
        failed=1
        # What it has left must not be the next one's.
        again=yes
        tail -n 3 "$work"/logs/*/logs/*.log >&2 2>/dev/null || true
        [ -e "$work/row.$launcher" ] || printf '%s - - - failed\n' "$launcher" >"$work/row.$launcher"
    fi
    [ "$launcher" != slurm ] || grep -v " DEBUG " "$work/slurm.out" || true
done
{
    echo "launcher ready_s import_s stop_s result"
    for launcher in "${only[@]}"; do cat "$work/row.$launcher"; done
} | awk '{ printf "%-10s %8s %8s %8s  %s\n", $1, $2, $3, $4, $5 }'
exit $failed
