#!/usr/bin/env bash
# The Python environment that the demo and the benches import from. Sourced by them after setup.sh
# and leftovers.sh. `find_python` sets `python`; `install_environment BASE` sets `environment`, the
# folder with numpy, scipy and pandas, made below BASE if it is not there. What is half made is in
# `part`: the sourcing script removes it when it ends.

part=

# The system's own Python: its standard library is not what is measured.
find_python() {
    python=/usr/bin/python3
    [ -x "$python" ] || python=$(command -v python3) || die "there is no python3"
    python_version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
        die "$python is $python_version; 3.9 or newer is needed"
}

install_environment() {
    environment=$1/python$python_version-$(uname -m)
    ! cmp -s "$root/ci/demo-requirements.txt" "$environment/.requirements" || return 0
    say "installing numpy, scipy and pandas into $environment"
    mkdir -p "$(dirname -- "$environment")" || die "set COPPER_DEMO_DIR to a folder that can be written"
    part=$(mktemp -d "$environment.XXXXXX")
    in_group "$python" -m pip --disable-pip-version-check --quiet install --root-user-action ignore \
        --only-binary :all: --target "$part" --requirement "$root/ci/demo-requirements.txt" ||
        die "pip could not install them: is there a network, and room on the disk?"
    cp "$root/ci/demo-requirements.txt" "$part/.requirements"
    chmod 755 "$part"
    # Whole or not at all.
    rm -rf "$environment"
    mv -T "$part" "$environment"
    part=
}
