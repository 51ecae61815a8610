#!/usr/bin/env bash
# Records the file system calls of a command and replays them against any folder, so that a mount and
# a local file system can be compared by the calls of a real program and by nothing else. Installs what
# is missing, builds what it needs, and hands over to benches/replay, whose --help has the options.
set -euo pipefail

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml" --package copper-replay
exec "$target/release/copper-replay" "$@"
