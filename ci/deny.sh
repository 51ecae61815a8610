#!/usr/bin/env bash
# Checks licences, sources, duplicates and known vulnerabilities of all dependencies (deny.toml).
# Not part of ci/test.sh: where cargo-deny is missing it is built first, which takes several minutes.
set -euo pipefail

if [ $# -gt 0 ]; then
    echo "usage: ci/deny.sh    (it takes no options)" >&2
    exit 2
fi
# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"

PATH=$PATH:$target/tools/bin
if ! command -v cargo-deny >/dev/null; then
    say "building cargo-deny into $target/tools: several minutes"
    cargo install --quiet --locked --root "$target/tools" --target-dir "$target/tools/target" cargo-deny
    rm -rf "$target/tools/target"
fi
cargo deny --locked check
