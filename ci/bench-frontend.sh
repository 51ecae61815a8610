#!/usr/bin/env bash
# What the mount costs beside a local file system: replays, imports, walks, a sequential read, each as
# a ratio to its rival in the same run, and the number of FUSE requests. About five minutes. Installs
# what is missing, builds, prints each figure with its bar, and fails if a bar is not kept.
set -euo pipefail

usage() {
    echo "usage: ci/bench-frontend.sh [--pairs N] [--only PART] [--json FILE]" >&2
    [ $# -eq 0 ] || echo "bench-frontend.sh: $*" >&2
    exit 2
}

pairs=10 only='' json=''
while [ $# -gt 0 ]; do
    case $1 in
        --pairs | --only | --json) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --pairs) pairs=$2; shift ;;
        --only) only=$2; shift ;;
        --json) json=$2; shift ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done
case $pairs in
    [2-9] | [1-5][0-9]) ;;
    *) usage "--pairs is 2 to 59, not '$pairs'" ;;
esac
case $only in
    '' | warm | cold | requests | sequential | walks | listings | profiles) ;;
    *) usage "--only is warm, cold, requests, sequential, walks, listings or profiles, not '$only'" ;;
esac
case $json in '' | /*) ;; *) json=$PWD/$json ;; esac

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
# shellcheck source=ci/environment.sh
. "$root/ci/environment.sh"
cd "$root"
packages=(libfuse3-dev)
! command -v dpkg-query >/dev/null || install_packages
find_python

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-bench.XXXXXX")
# The rival is a tmpfs, and the source the same one.
local=$(mktemp -d /dev/shm/copper-bench.XXXXXX)
mark="COPPER_RUN_DIR=$work/run"

remove_own() {
    [ -z "$part" ] || rm -rf "$part"
    rm -rf --one-file-system "$local"
}
leave_nothing "$mark" "$work"

say "building (minutes the first time)"
in_group cargo build --release --locked --package copper --package copper-replay
example=/usr/share/doc/libfuse3-dev/examples
in_group gcc -O2 -o "$work/passthrough_ll" -I "$example" "$example/passthrough_ll.c" \
    -D_FILE_OFFSET_BITS=64 -I /usr/include/fuse3 -lfuse3 -lpthread ||
    die "libfuse's example passthrough_ll.c could not be built from $example"
base=${COPPER_DEMO_DIR:-$root/.demo}
case $base in /*) ;; *) base=$PWD/$base ;; esac
install_environment "$base"

mkdir -p "$work/run" "$work/logs" "$local/data"
chmod 700 "$work/run"
import=(PYTHONNOUSERSITE=1 PYTHONPATH="$environment" "$python" -c 'import numpy, scipy.linalg, pandas')
# Byte-compiled first, as an installed environment is.
in_group env "${import[@]}"
say "recording an import"
in_group "$target/release/copper-replay" record "$work/import.trace" --below "$environment" -- \
    env PYTHONDONTWRITEBYTECODE=1 "${import[@]}" >"$work/record.log" 2>&1 ||
    { cat "$work/record.log" >&2; die "the import could not be recorded"; }
cp -a "$environment" "$local/site"
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg)"

in_group env "$mark" "$python" benches/frontend.py --copper "$target/release/copper" \
    --replay "$target/release/copper-replay" --trace "$work/import.trace" \
    --passthrough "$work/passthrough_ll" --python "$python" --site "$local/site" --data "$local/data" \
    --work "$work" --pairs "$pairs" ${only:+--only "$only"} ${json:+--json "$json"}
