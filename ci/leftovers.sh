#!/usr/bin/env bash
# What a run of Copper could leave behind, and how to run something so that it can be ended as a
# whole. Sourced by the scripts of this folder.

# The process group that `in_group` runs.
group=

# Runs a command in a process group of its own, so that a signal is handled at once and not when the
# command is done.
in_group() {
    local code=0
    set -m
    "$@" </dev/null &
    group=$!
    set +m
    wait "$group" || code=$?
    # What a failed command has started may still be at it.
    [ "$code" -eq 0 ] || kill -TERM -- "-$group" 2>/dev/null || true
    group=
    return "$code"
}

# Ends what `in_group` was running when a signal came: all of it, not the first process alone.
end_group() {
    [ -n "$group" ] || return 0
    kill -TERM -- "-$group" 2>/dev/null || true
    wait "$group" || true
    group=
}

# FUSE mounts at or below the given folders, one a line.
mounts_below() {
    local folder
    for folder in "$@"; do
        awk -v folder="$folder/" '
            index($5 "/", folder) == 1 {
                for (i = 7; i < NF; i++) if ($i == "-") { if ($(i + 1) ~ /^fuse/) print $5; break }
            }' /proc/self/mountinfo
    done
}

# Processes that were started with NAME=VALUE ($1) in their environment, one a line. The caller
# must not have exported it, else it would find itself.
processes_with() {
    local file pid
    while read -r file; do
        pid=${file#/proc/}
        pid=${pid%/environ}
        printf '%s %s\n' "$pid" "$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true)"
    done < <(grep -lzxF -e "$1" /proc/[0-9]*/environ 2>/dev/null || true)
}

# Whether no process with $1 in its environment is left, and no mount below the other arguments.
# A daemon may take a moment to end: there are five seconds.
nothing_left() {
    local mark=$1 left='' try
    shift
    for ((try = 0; try < 50; try++)); do
        left=$(
            mounts_below "$@" | sed 's/^/left behind: mount /'
            processes_with "$mark" | sed 's/^/left behind: process /'
        )
        [ -n "$left" ] || return 0
        sleep 0.1
    done
    printf '%s\n' "$left" >&2
    return 1
}

# Ends and unmounts by force what `nothing_left` has found.
remove_left() {
    local mark=$1 pid point
    shift
    processes_with "$mark" | while read -r pid _; do kill -KILL "$pid" 2>/dev/null || true; done
    mounts_below "$@" | while read -r point; do fusermount3 -u -z "$point" || true; done
}

# However the script ends from now on: what `in_group` runs is ended, the first of the folders is
# removed, and a process with $1 in its environment or a mount below the folders is a failure. A
# function `remove_own`, if there is one, is called with the exit status when no process is left.
leave_nothing() {
    leave_mark=$1
    shift
    leave_folders=("$@")
    trap 'leave $?' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

leave() {
    local code=$1
    trap - EXIT
    end_group
    if ! nothing_left "$leave_mark" "${leave_folders[@]}"; then
        remove_left "$leave_mark" "${leave_folders[@]}"
        [ "$code" -ne 0 ] || code=1
    fi
    ! declare -F remove_own >/dev/null || remove_own "$code" || code=1
    # Never through a mount.
    [ -n "$(mounts_below "${leave_folders[0]}")" ] || rm -rf --one-file-system "${leave_folders[0]}"
    exit "$code"
}
