#!/usr/bin/env bash
# Installs what is missing, then runs all checks and tests: format, clippy, documentation, the
# libfabric suite with a second runtime and with the address sanitizer, models of threads, every test; at last, that no mount and no process is left.
# Minutes on two cores. `cargo nextest` is used where it is there, else `cargo test`.
set -euo pipefail

if [ $# -gt 0 ]; then
    echo "usage: ci/test.sh    (it takes no options)" >&2
    exit 2
fi
# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"
# Root's tests start hosts of their own, with ci/cluster.sh.
if [ "$(id -u)" -eq 0 ] && command -v dpkg-query >/dev/null; then
    packages=(iproute2 util-linux openssh-server openssh-client)
    # For the pages of `copper report`; other distributions have no such package, and their tests say so.
    ! grep -qx 'ID=debian' /etc/os-release || packages+=(chromium-headless-shell)
    install_packages
fi
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 ||
        die "cargo $component is missing; run: rustup component add rustfmt clippy"
done

# Where tests put what they make: their temporary files, and their mounts, which are in Cargo's folder.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/copper-test.XXXXXX")
# Some tests become an ordinary user.
chmod 755 "$scratch"
mark="COPPER_TEST_RUN=$scratch"
places=("$scratch" "$target/tmp")

leave_nothing "$mark" "${places[@]}"

left_before=$(mounts_below "${places[@]}")
[ -z "$left_before" ] || die "an earlier run left mounts, unmount them first (fusermount3 -u): $left_before"

step() {
    say "$*"
    in_group env "$mark" TMPDIR="$scratch" "$@"
}

step cargo fmt --all --check
step cargo clippy --locked --workspace --all-targets -- -D warnings
step cargo test --locked --doc --workspace
step ci/runtimes.sh
step ci/sanitize.sh --short
step ci/models.sh --short
# What an old kernel gives: none of its caches.
uncached=(env COPPER_TEST_LAUNCH="--no-kernel-cache all")
# All that is not about what the caches save.
uncached_tests=()
for name in reading changes directories programs permissions trust; do uncached_tests+=(--test "$name"); done
if cargo nextest --version >/dev/null 2>&1; then
    # Two minutes by itself, for a listing that has nothing to do with the kernel's caches.
    step "${uncached[@]}" cargo nextest run --locked --config-file ci/nextest.toml "${uncached_tests[@]}" \
        -E 'not test(a_directory_of_100_000_files)'
    step cargo nextest run --locked --workspace --config-file ci/nextest.toml
else
    step "${uncached[@]}" cargo test --locked "${uncached_tests[@]}"
    step cargo test --locked --workspace
fi
