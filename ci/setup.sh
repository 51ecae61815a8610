#!/usr/bin/env bash
# Installs what a Debian 12 machine lacks to build, test and show Copper, and checks what it cannot
# install: Rust and /dev/fuse. Run it, or source it from a script of this folder, which then has the
# variables `root` and `target` and the functions `say` and `die`. Quick when nothing is missing. A script
# that neither builds nor mounts sets `packages_only` first: no more than these is installed or checked.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

# Cargo's folder, absolute: the scripts change theirs.
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
export CARGO_TARGET_DIR=$target

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# libfabric's headers; what bindgen and the C shim need; fusermount3; the demo's language. Tests run
# some of it in a view, and git and rsync, record calls with strace, load the module file with lua,
# and read the screen of tmux.
packages=(libclang-dev gcc libc6-dev pkg-config fuse3 python3 python3-pip git rsync strace lua5.4 tmux)
# A libfabric that the builder names takes the place of Debian's.
[ -n "${LIBFABRIC_PREFIX:-}" ] || packages+=(libfabric-dev)
[ -z "${packages_only+set}" ] || packages=("${packages_only[@]}")

missing_packages() {
    local package state
    for package in "${packages[@]}"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=none
        [ "$state" = installed ] || printf '%s\n' "$package"
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

# What Debian asks before it starts a service.
policy=/usr/sbin/policy-rc.d

# While packages are installed, no service of theirs starts; afterwards none is left enabled. Nothing
# that Copper is built or tested with is run as a service.
hold_services() {
    [ -e "$policy" ] || as_root sh -c "printf '#!/bin/sh\n# of ci/setup.sh\nexit 101\n' >$policy && chmod 755 $policy" 2>/dev/null || true
}

release_services() {
    local units
    ! grep -qs '^# of ci/setup.sh$' "$policy" || as_root rm "$policy" || true
    mapfile -t units < <(dpkg -L "$@" 2>/dev/null | sed -n 's|.*/systemd/system/\([^/@]*\.\(service\|socket\)\)$|\1|p')
    [ ${#units[@]} -eq 0 ] || ! command -v systemctl >/dev/null || as_root systemctl --quiet disable "${units[@]}" 2>/dev/null || true
}

install_packages() {
    local missing code=0
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them, there is no apt-get here"
    say "installing ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120)
    # One source of packages that does not answer need not be the one that is needed.
    as_root "${apt[@]}" update >/dev/null || say "apt-get update failed; going on with the lists that are there"
    hold_services
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null || code=$?
    release_services "${missing[@]}"
    [ "$code" -eq 0 ] ||
        die "could not install them; as root: apt-get install ${missing[*]}"
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] || die "still missing after apt-get install: ${missing[*]}"
}

check_rust() {
    local wanted found
    command -v cargo >/dev/null || PATH=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
    [ -n "$wanted" ] || die "Cargo.toml has no rust-version"
    command -v cargo >/dev/null || die "Rust is not installed: install $wanted or newer with rustup, see https://rustup.rs"
    found=$(rustc --version 2>&1) || die "rustc does not run: $found"
    found=${found#rustc }
    found=${found%%[ -]*}
    [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
        die "Rust $found is older than $wanted, which Copper needs; run: rustup update"
}

check_fuse() {
    if [ ! -e /dev/fuse ] && command -v modprobe >/dev/null; then
        as_root modprobe fuse 2>/dev/null || true
    fi
    [ -e /dev/fuse ] ||
        die "there is no /dev/fuse; as root: modprobe fuse; in a container start it with --device /dev/fuse, or as root: mknod -m 666 /dev/fuse c 10 229"
    # Opening it mounts nothing; a container may show the file and forbid its use.
    (: <>/dev/fuse) 2>/dev/null ||
        die "/dev/fuse cannot be opened by this user; as root: chmod 666 /dev/fuse; in a container start it with --device /dev/fuse --cap-add SYS_ADMIN"
}

if command -v dpkg-query >/dev/null; then
    install_packages
else
    say "no Debian: make sure that there are the equivalents of ${packages[*]}"
fi
if [ -z "${packages_only+set}" ]; then
    check_rust
    check_fuse
fi
