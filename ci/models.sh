#!/usr/bin/env bash
# Lets loom try every order in which threads may come to what they share: the engine's bell, the blocks
# that are shown while extents are recycled, the arena's pages (src/engine/models.rs,
# ofi/src/arena/models.rs). Each model must also find the bugs planted in it. With --short, orders in
# which threads are interrupted three times at most, which ci/test.sh runs.
set -euo pipefail

usage() {
    echo "usage: ci/models.sh [--short]" >&2
    [ $# -eq 0 ] || echo "models.sh: $*" >&2
    exit 2
}

bound=()
while [ $# -gt 0 ]; do
    case $1 in
        --short) bound=(LOOM_MAX_PREEMPTIONS=3) ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"
machine=$(rustc -vV | sed -n 's/^host: //p')
# A target that is named keeps the flags out of build scripts.
say "building (a minute the first time)"
output=$(env RUSTFLAGS="--cfg copper_loom" "${bound[@]}" \
    cargo test --locked --target "$machine" --lib --package copper-engine --package copper-ofi \
    -- models:: 2>&1) || { printf '%s\n' "$output" >&2; die "a model fails"; }
printf '%s\n' "$output" | grep '^test '
# A model that was not run has found nothing.
[ "$(printf '%s\n' "$output" | grep -c '^test .*models::.* ok$')" -eq 8 ] || die "8 models were to be run"
