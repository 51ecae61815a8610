#!/usr/bin/env bash
# The first process of a host of ci/cluster.sh, which starts it in the host's namespaces: makes it the
# host that it is, starts its services, and reaps what others leave. Only SIGKILL from outside ends it,
# and with it all that runs on the host.
set -euo pipefail

# The cluster's folder, this host's name, and the places that are its own.
dir=$1 name=$2
shift 2
private=("$@")

within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt "$end" ] || return 1
        sleep 0.1
    done
}

# What of the machine's mounts a host must not hold on to: a FUSE mount would not end where it was made
# as long as a copy of it is here, and a network namespace neither.
drop_copies() {
    local point type
    while read -r _ point type _; do
        case $type in
            fuse | fuse.* | fuseblk | nsfs) printf '%b\0' "$point" ;;
        esac
    done </proc/self/mounts | while IFS= read -r -d '' point; do umount --lazy --no-canonicalize "$point" || true; done
}

# Each place is put together beside, with what all hosts share in it, and then moved into view as a whole.
make_private() {
    local place share base=$dir/$name
    mount -t tmpfs -o mode=755,size=64m run "$base/run"
    mkdir -p "$base/run/sshd" "$base/run/lock"
    mount -t tmpfs -o mode=1777 shm "$base/dev/shm"
    while read -r share; do
        mkdir -p "$base$share"
        mount --bind "$share" "$base$share"
    done <"$dir/shares"
    # Last the one that hides what is put together.
    for place in "${private[@]}"; do case $base in "$place"/*) ;; *) mount --rbind "$base$place" "$place" ;; esac; done
    for place in "${private[@]}"; do case $base in "$place"/*) mount --rbind "$base$place" "$place" ;; esac; done
}

replace_files() {
    mount --bind "$dir/etc-hosts" /etc/hosts
    # ssh reaches all hosts without an option: launchers need not know of a configuration.
    mount --bind "$dir/ssh_config" /etc/ssh/ssh_config
    # sshd without PAM lets nobody into an account that is locked.
    if grep -q '^root:!' /etc/shadow 2>/dev/null; then
        (umask 077 && printf 'root:*:19000:0:99999:7:::\n' >"$dir/$name/shadow")
        mount --bind "$dir/$name/shadow" /etc/shadow
    fi
}

start_slurm() {
    if [ "$name" = node0 ]; then
        /usr/sbin/munged --foreground --force --num-threads 4 --key-file "$dir/slurm/munge.key" \
            --socket "$dir/slurm/munge.socket" --pid-file /run/munged.pid --seed-file /run/munged.seed \
            --log-file "$dir/slurm/munged.log" &
        within 10 test -S "$dir/slurm/munge.socket"
        /usr/sbin/slurmctld -D -f "$dir/slurm/slurm.conf" &
    fi
    mkdir -p "$dir/$name/slurmd"
    # One munged for all: its socket is on the shared disk.
    within 20 test -S "$dir/slurm/munge.socket"
    /usr/sbin/slurmd -D -f "$dir/slurm/slurm.conf" -N "$name" &
}

hostname "$name"
drop_copies
# This host's network devices, not the machine's.
mount -t sysfs sysfs /sys
make_private
replace_files
cd /
/usr/sbin/sshd -D -e -f "$dir/sshd_config" &
if [ -e "$dir/slurm" ]; then start_slurm; fi
while :; do wait || true; sleep 1; done
