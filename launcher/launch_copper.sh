#!/bin/sh
# Starts Copper or, under a name with "stop" in it, stops it: finds the program copper and hands
# everything on. `launch_copper.sh --help` lists the options; they are those of `copper launch`.
# Under the names of Aurora and Frontier it launches over Slingshot (`-n cxi`) where there is any and
# nothing else is said: on these machines another network would be a mistake that nobody sees.

set -u

name=$(basename -- "$0")
case $name in
    *stop*) command=stop ;;
    *) command=launch ;;
esac

case $command-$name in
    launch-*_aurora.sh | launch-*_frontier.sh)
        net=
        for word; do
            case $word in -n* | --net | --net=*) net=given ;; esac
        done
        if [ -z "$net" ] && [ -z "${FI_PROVIDER:-}" ] && [ -d /sys/class/cxi ]; then
            set -- -n cxi "$@"
        fi
        ;;
esac

# The folder of this script, through any symbolic links to it.
script=$0
while [ -L "$script" ]; do
    target=$(readlink "$script")
    case $target in
        /*) script=$target ;;
        *) script=$(dirname "$script")/$target ;;
    esac
done
here=$(CDPATH='' cd -- "$(dirname -- "$script")" && pwd -P)

# A set COPPER_ROOT is meant: if copper is not there, another one would be a surprise.
if [ -n "${COPPER_ROOT:-}" ]; then
    if [ ! -x "$COPPER_ROOT/bin/copper" ]; then
        echo "$name: COPPER_ROOT is $COPPER_ROOT, but there is no program $COPPER_ROOT/bin/copper; correct COPPER_ROOT or unset it" >&2
        exit 2
    fi
    exec "$COPPER_ROOT/bin/copper" "$command" "$@"
fi

# Installed beside this script, in a checkout, anywhere else.
for copper in "$here/../bin/copper" "$here/copper" "$here/../target/release/copper"; do
    if [ -x "$copper" ] && [ ! -d "$copper" ]; then
        exec "$copper" "$command" "$@"
    fi
done
if command -v copper >/dev/null 2>&1; then
    exec copper "$command" "$@"
fi

echo "$name: cannot find the program copper; load its module, set COPPER_ROOT to where it is installed, or build it with: cargo build --release" >&2
exit 2
