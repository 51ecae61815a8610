#!/usr/bin/env bash
# Runs the libfabric suite, as built against the headers that are installed, with a second libfabric:
# 2.5.1 from the Python package mpich. What was compiled on the oldest supported version has to run
# on a newer one. Part of ci/test.sh; runs alone too.
set -euo pipefail

if [ $# -gt 0 ]; then
    echo "usage: ci/runtimes.sh    (it takes no options)" >&2
    exit 2
fi
# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"

python=/usr/bin/python3
[ -x "$python" ] || python=python3
wheel=mpich==5.0.2
runtime=$target/runtimes/$wheel

# Only the library itself: its neighbours in the package are an MPI that nobody here wants to load.
if [ ! -e "$runtime/libfabric.so.1" ]; then
    say "fetching libfabric 2.5.1 ($wheel)"
    mkdir -p "$target/runtimes"
    part=$(mktemp -d "$target/runtimes/part.XXXXXX")
    trap 'rm -rf "$part"' EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$part" "$wheel" ||
        die "could not fetch $wheel: is there a network, and a build for this machine?"
    "$python" -m zipfile -e "$part"/mpich-*.whl "$part/wheel"
    library=$(find "$part/wheel" -name libfabric.so.1 | head -n 1)
    [ -n "$library" ] || die "$wheel holds no libfabric.so.1"
    mkdir -p "$runtime"
    mv "$library" "$runtime/libfabric.so.1"
    rm -rf "$part"
    trap - EXIT
fi

# Built as for the system's library, then run with the other one alone.
suite=$(cargo test --locked --workspace --test provider --no-run --message-format json-render-diagnostics | "$python" -c '
import json, sys
print(*filter(None, (json.loads(line).get("executable") for line in sys.stdin)), sep="\n")')
suite=$(printf '%s\n' "$suite" | grep '/provider-')
export LD_LIBRARY_PATH=$runtime${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
ldd "$suite" | grep -qF "=> $runtime/libfabric.so.1 " || die "$suite would not load $runtime/libfabric.so.1"
say "the libfabric suite with $runtime"
cd ofi
"$suite" --test-threads 2
