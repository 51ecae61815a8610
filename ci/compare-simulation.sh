#!/usr/bin/env bash
# The simulator against reality: eight real ranks on this machine replay an import, and the read of a
# large file, in several shapes of the job; `copper simulate` says how long each takes, with its numbers
# measured here in between. About ten minutes. Installs what is missing, builds, prints both and
# their ratio with its bar, and fails if a bar is not kept.
set -euo pipefail

usage() {
    echo "usage: ci/compare-simulation.sh [--ranks N] [--rounds N] [--json FILE]" >&2
    [ $# -eq 0 ] || echo "compare-simulation.sh: $*" >&2
    exit 2
}

ranks=8 rounds=5 json=''
while [ $# -gt 0 ]; do
    case $1 in
        --ranks | --rounds | --json) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --ranks) ranks=$2; shift ;;
        --rounds) rounds=$2; shift ;;
        --json) json=$2; shift ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done
case $ranks in
    [3-9] | [12][0-9] | 3[0-2]) ;;
    *) usage "--ranks is 3 to 32, not '$ranks'" ;;
esac
case $rounds in
    [1-9] | [1-5][0-9]) ;;
    *) usage "--rounds is 1 to 59, not '$rounds'" ;;
esac
case $json in '' | /*) ;; *) json=$PWD/$json ;; esac

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
# shellcheck source=ci/environment.sh
. "$root/ci/environment.sh"
cd "$root"
packages=(strace)
! command -v dpkg-query >/dev/null || install_packages
find_python

work=$(mktemp -d "${TMPDIR:-/tmp}/copper-compare.XXXXXX")
mark="COPPER_RUN_DIR=$work/run"
leave_nothing "$mark" "$work"

say "building (minutes the first time)"
in_group cargo build --release --locked --package copper --package copper-replay
replay=$target/release/copper-replay
base=${COPPER_DEMO_DIR:-$root/.demo}
case $base in /*) ;; *) base=$PWD/$base ;; esac
install_environment "$base"

mkdir -p "$work/run" "$work/logs" "$work/data"
chmod 700 "$work/run"
head -c 134217728 /dev/urandom >"$work/data/file"
import=(PYTHONNOUSERSITE=1 PYTHONPATH="$environment" "$python" -c 'import numpy, scipy.linalg, pandas')
# Byte-compiled first, as an installed environment is.
in_group env "${import[@]}"
say "recording an import and a read"
in_group "$replay" record "$work/import.trace" --below "$environment" -- \
    env PYTHONDONTWRITEBYTECODE=1 "${import[@]}" >"$work/record.log" 2>&1 ||
    { cat "$work/record.log" >&2; die "the import could not be recorded"; }
in_group "$replay" record "$work/read.trace" --below "$work/data" -- \
    dd if="$work/data/file" of=/dev/null bs=1M status=none >"$work/record.log" 2>&1 ||
    { cat "$work/record.log" >&2; die "the read could not be recorded"; }
say "on $(nproc) processors, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg)"

# Before other work of the machine, as far as that is allowed: the model knows of none.
in_group env "$mark" nice -n -20 "$python" benches/simulation.py --copper "$target/release/copper" \
    --replay "$replay" --work "$work" --site "$environment" --imports "$work/import.trace" \
    --data "$work/data" --reads "$work/read.trace" --ranks "$ranks" --rounds "$rounds" \
    ${json:+--json "$json"}
