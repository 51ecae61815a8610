#!/usr/bin/env bash
# The main job on one machine: starts ranks of Copper, imports numpy, scipy and pandas through all of
# their mounts at once, verifies every byte, and measures. Only rank 0 may read the source. Installs
# what is missing, builds, prints a table per rank and each claim with its figure, and fails if a
# claim does not hold. Nothing of it stays but the build and the Python packages.
set -euo pipefail

usage() {
    echo "usage: ci/demo.sh [--ranks N] [--json FILE] [--keep]" >&2
    [ $# -eq 0 ] || echo "demo.sh: $*" >&2
    exit 2
}

help() {
    cat <<'END'
usage: ci/demo.sh [--ranks N] [--json FILE] [--keep]
  --ranks N    ranks to start, 2 to 64 [default: 4]
  --json FILE  write the figures there
  --keep       leave the ranks running, and say how to look at and how to stop them
environment:
  COPPER_DEMO_DIR   where the Python packages are installed [default: .demo in the checkout]
  CARGO_TARGET_DIR  where Cargo builds [default: target in the checkout]
END
    exit 0
}

ranks=4 json='' keep=no
while [ $# -gt 0 ]; do
    case $1 in
        --ranks | --json) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    esac
    case $1 in
        --ranks) ranks=$2; shift ;;
        --ranks=*) ranks=${1#*=} ;;
        --json) json=$2; shift ;;
        --json=*) json=${1#*=} ;;
        --keep) keep=yes ;;
        -h | --help) help ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done
case $ranks in
    [2-9] | [1-5][0-9] | 6[0-4]) ;;
    *) usage "--ranks is 2 to 64, not '$ranks'" ;;
esac
if [ -n "$json" ]; then
    case $json in /*) ;; *) json=$PWD/$json ;; esac
    { [ -d "$(dirname -- "$json")" ] && [ -w "$(dirname -- "$json")" ] && [ ! -d "$json" ]; } ||
        usage "cannot write $json"
fi
environment=${COPPER_DEMO_DIR:-}
case $environment in '' | /*) ;; *) environment=$PWD/$environment ;; esac

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
# shellcheck source=ci/environment.sh
. "$root/ci/environment.sh"
cd "$root"

find_python

base=${environment:-$root/.demo}
work=$(mktemp -d "${TMPDIR:-/tmp}/copper-demo.XXXXXX")
stay=no
mark="COPPER_RUN_DIR=$work/run"
copper="$target/release/copper"

finish() {
    local code=$?
    trap - EXIT
    end_group
    [ -z "$part" ] || rm -rf "$part"
    if [ "$stay" = yes ]; then
        say "the ranks stay. To look:  $mark $(printf '%q' "$copper") status -v $work/view"
        say "                To stop:  $mark COPPER_ROOT=$work/root $root/launcher/stop_copper.sh -v $work/view && rm -r $work"
        exit "$code"
    fi
    # It could not be measured: what the ranks had to say, before they are told to go.
    [ "$code" -ne 3 ] || grep -hE ' (WARN|ERROR) ' -r "$work/logs" 2>/dev/null | tail -n 20 >&2 || true
    if [ -d "$work/run" ]; then
        env "$mark" COPPER_ROOT="$work/root" launcher/stop_copper.sh -v "$work/view" || {
            [ "$code" -ne 0 ] || code=1
        }
    fi
    if nothing_left "$mark" "$work"; then
        [ ! -d "$work/run" ] || say "stopped: no mount and no process is left"
    else
        remove_left "$mark" "$work"
        [ "$code" -ne 0 ] || code=1
    fi
    # Never through a mount.
    [ -n "$(mounts_below "$work")" ] || rm -rf --one-file-system "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say "building Copper (minutes the first time)"
in_group cargo build --release --locked

install_environment "$base"

# The launch scripts look for the program here; the daemons write themselves down in `run`.
mkdir -p "$work/root/bin" "$work/run" "$work/logs"
chmod 700 "$work/run"
ln -s "$copper" "$work/root/bin/copper"

code=0
in_group env "$mark" COPPER_ROOT="$work/root" "$python" ci/demo.py --launcher "$root/launcher" \
    --work "$work" --environment "$environment" --ranks "$ranks" --json "$json" || code=$?
# 1: a claim does not hold, which somebody may want to look into. Else there is nothing to look at.
if [ "$keep" = yes ] && [ "$code" -le 1 ]; then
    stay=yes
fi
if [ "$code" -ne 0 ]; then exit "$code"; fi
