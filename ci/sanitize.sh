#!/usr/bin/env bash
# Runs the libfabric suite over tcp, ranks as real processes, and the engine's and the launcher's tests
# with the address sanitizer, which is told which bytes of the arena belong to whom
# (ofi/src/arena/shadow.rs); some of the libfabric suite with valgrind, which sees libfabric's own steps
# and bytes that nobody has written; and bugs planted for both, each of which must be reported. With
# --short, what ci/test.sh runs: the libfabric suite and the bugs. Works with stable Rust, of which it
# takes an unstable option.
set -euo pipefail

usage() {
    echo "usage: ci/sanitize.sh [--short]" >&2
    [ $# -eq 0 ] || echo "sanitize.sh: $*" >&2
    exit 2
}

short=no
while [ $# -gt 0 ]; do
    case $1 in
        --short) short=yes ;;
        *) usage "there is no option $1" ;;
    esac
    shift
done

# shellcheck source=ci/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=ci/leftovers.sh
. "$root/ci/leftovers.sh"
cd "$root"
packages=(valgrind)
! command -v dpkg-query >/dev/null || install_packages
scratch=$(mktemp -d "${TMPDIR:-/tmp}/copper-sanitize.XXXXXX")
mark="COPPER_SANITIZE_RUN=$scratch"
# Mounts of tests are in Cargo's folder.
leave_nothing "$mark" "$scratch" "$target/tmp"

machine=$(rustc -vV | sed -n 's/^host: //p')
# A target that is named keeps the sanitizer out of build scripts; the option is an unstable one.
sanitizer=(env RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address --cfg copper_asan")
# A parent's free pages may be read by a child at any time: leases and checksums, not ownership, protect
# the child.
options=intercept_send=0:log_path=$scratch/report

# The test programs of a cargo command, each on a line.
programs() {
    "$@" --locked --no-run --message-format json-render-diagnostics |
        python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        print(message["executable"])'
}

# A test program must pass; whatever it or its daemons reported is shown.
passes() {
    local program=$1
    shift
    say "${program##*/} $*"
    in_group env "$mark" TMPDIR="$scratch" ASAN_OPTIONS="$options" "$program" --quiet "$@" >"$scratch/output" 2>&1 &&
        ! compgen -G "$scratch/report.*" >/dev/null || {
        cat "$scratch/output" "$scratch"/report.* >&2 2>/dev/null || true
        die "${program##*/} fails, or the address sanitizer has found something"
    }
}

# A planted bug must be reported as $2.
is_found() {
    local program=$1 bug=$2 kind=$3
    rm -f "$scratch"/report.*
    if in_group env ASAN_OPTIONS="$options" "$program" --quiet --ignored --exact "$bug" >"$scratch/output" 2>&1; then
        die "the address sanitizer does not find $bug"
    fi
    grep -q "ERROR: AddressSanitizer: $kind" "$scratch"/report.* 2>/dev/null || {
        cat "$scratch/output" "$scratch"/report.* >&2 2>/dev/null || true
        die "$bug was to be reported as $kind"
    }
    rm -f "$scratch"/report.*
    say "found, as it should be: $bug"
}

say "building (minutes the first time)"
sanitized=("${sanitizer[@]}" cargo test --target "$machine")
ofi=$(programs "${sanitized[@]}" --package copper-ofi)
plain=$(programs cargo test --package copper-ofi --test provider --test planted)
# The program of this name among those in $1.
program() { printf '%s\n' "$1" | grep "/$2-"; }

cd ofi
passes "$(program "$ofi" copper_ofi)"
passes "$(program "$ofi" provider)" tcp:: --test-threads 2
planted=$(program "$ofi" planted)
is_found "$planted" arena::a_byte_behind_a_piece use-after-poison
is_found "$planted" arena::bytes_that_outlive_their_piece use-after-poison
is_found "$planted" arena::a_read_into_a_piece_that_was_returned use-after-poison

valgrind=(env "$mark" valgrind --quiet --error-exitcode=9 --log-file="$scratch/valgrind")
for each in one_byte_goes_there_and_back a_message_of_parts_arrives_as_one \
    bytes_of_any_length_arrive_from_any_offset a_read_under_way_from_a_lost_peer_returns_its_piece; do
    say "valgrind: tcp::$each"
    in_group "${valgrind[@]}" "$(program "$plain" provider)" --quiet --exact "tcp::$each" >"$scratch/output" 2>&1 || {
        cat "$scratch/output" "$scratch/valgrind" >&2
        die "tcp::$each fails, or valgrind has found something"
    }
done
bug=a_message_of_bytes_that_nobody_wrote
! in_group "${valgrind[@]}" "$(program "$plain" planted)" --quiet --ignored --exact "$bug" >"$scratch/output" 2>&1 ||
    die "valgrind does not find $bug"
grep -q 'uninitialised byte' "$scratch/valgrind" || {
    cat "$scratch/output" "$scratch/valgrind" >&2
    die "$bug was to be reported as uninitialised bytes"
}
say "found, as it should be: $bug"
cd "$root"
[ "$short" = no ] || exit 0

# A daemon frees not all that it has before it exits.
options=$options:detect_leaks=0

long=$(programs "${sanitized[@]}" --package copper --package copper-engine --package copper-launcher \
    --lib --test sharing --test failures --test local)
for each in $long; do
    case $each in
        */local-*) cd "$root/launcher" ;;
        *) cd "$root" ;;
    esac
    passes "$each" --test-threads 2
done
