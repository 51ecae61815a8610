#!/usr/bin/env bash
# What the data engine does beside bare libfabric, MPI and plain copies: pulls, small answers, fan-out,
# broadcast, idling. Prints each figure as a ratio to a rival in the same run, with its bar, and keeps
# a dated record in benches/record. With BASE, a git revision, the ratios of that version too. About
# ten minutes; --short, to see that it runs, one. Installs what is missing.
set -euo pipefail

usage() {
    echo "usage: ci/bench.sh [--short] [--strict] [--only PART]... [--ranks N] [--no-record] [BASE]" >&2
    [ $# -eq 0 ] || echo "bench.sh: $*" >&2
    exit 2
}

options=() base='' record=yes
while [ $# -gt 0 ]; do
    case $1 in
        --only | --ranks) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --only)
            case $2 in
                pull | answer | fanout | broadcast | idle) options+=(--only "$2") ;;
                *) usage "--only is pull, answer, fanout, broadcast or idle, not '$2'" ;;
            esac
            shift
            ;;
        --ranks)
            case $2 in
                [2-9] | [1-5][0-9] | 6[0-4]) options+=(--ranks "$2") ;;
                *) usage "--ranks is 2 to 64, not '$2'" ;;
            esac
            shift
            ;;
        --short) options+=(--short) record='' ;;
        --strict) options+=(--strict) ;;
        --no-record) record='' ;;
        -*) usage "there is no option $1" ;;
        *) [ -z "$base" ] || usage "one BASE at most"; base=$1 ;;
    esac
    shift
done

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"
if [ -n "$base" ]; then
    base=$(git rev-parse --verify --quiet --short "$base^{commit}") || die "there is no revision of that name"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-bench.XXXXXX")
memory=$(mktemp -d /dev/shm/copper-bench.XXXXXX)
mark="COPPER_RUN_DIR=$work/run"
part=''

remove_own() {
    [ -z "$part" ] || rm -rf "$part"
    [ ! -e "$work/base" ] || git worktree remove --force "$work/base" || true
    rm -rf --one-file-system "$memory"
}
leave_nothing "$mark" "$work"

# The rival: MPICH with a libfabric of its own, which both sides use for the comparison. Debian's
# MPICH is built without libfabric's tcp.
wheel=mpich==5.0.2
mpi=$target/runtimes/mpi-$wheel
if [ ! -e "$mpi/bin/mpiexec" ]; then
    say "fetching MPICH ($wheel)"
    python=/usr/bin/python3
    [ -x "$python" ] || python=python3
    mkdir -p "$target/runtimes"
    part=$(mktemp -d "$target/runtimes/part.XXXXXX")
    in_group "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$part" "$wheel" ||
        die "could not fetch $wheel: is there a network, and a build for this machine?"
    "$python" -m zipfile -e "$part"/mpich-*.whl "$part/wheel"
    chmod -R u+x "$part"/wheel/mpich-*.data/data/bin
    rm -rf "$mpi"
    mv -T "$part"/wheel/mpich-*.data/data "$mpi"
    rm -rf "$part"
    part=''
fi
gcc -O2 -Wall -Wextra -Werror -I "$mpi/include" -o "$work/broadcast" benches/broadcast.c \
    -L "$mpi/lib" -L "$mpi/lib/mpich" -Wl,-rpath-link,"$mpi/lib/mpich" -lmpi || die "benches/broadcast.c could not be built"

say "building (minutes the first time)"
in_group cargo build --release --locked --package copper
if [ -n "$base" ]; then
    say "building $base"
    git worktree add --quiet --detach "$work/base" "$base"
    in_group env CARGO_TARGET_DIR="$target/base" cargo build --release --locked --package copper \
        --manifest-path "$work/base/Cargo.toml"
    "$target/base/release/copper" bench --help >/dev/null 2>&1 || die "$base has no copper bench"
    options+=(--base "$target/base/release/copper" --base-revision "$base")
fi
mkdir -p -m 700 "$work/run"
[ -z "$record" ] || options+=(--record "$root/benches/record")
revision=$(git describe --always --dirty 2>/dev/null) || revision=unknown

in_group env "$mark" /usr/bin/python3 benches/engine.py --copper "$target/release/copper" \
    --revision "$revision" --mpi "$mpi" --broadcast "$work/broadcast" --work "$work" --memory "$memory" \
    "${options[@]}"
