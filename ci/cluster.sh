#!/usr/bin/env bash
# A cluster on one machine: hosts made of namespaces, to try launchers and failures on. A host has its
# own name, address, /tmp, /run, /dev/shm, mounts and processes, and an sshd; it shares the rest of the
# disk, which plays the parallel file system. Their network is a bridge in a namespace of its own:
# nothing of the machine's network is touched. Takes root.
#
# What names a cluster is its folder: the namespaces carry a checksum of its path, so that `down` needs
# no record to find them, whatever became of the `up` that made them.
set -euo pipefail

usage() {
    echo "cluster.sh: $*; see ci/cluster.sh --help" >&2
    exit 2
}

help() {
    cat <<'END'
usage: ci/cluster.sh up N [OPTIONS]     start hosts node0 … node<N-1>, N from 1 to 250
       ci/cluster.sh down               end them and all that runs on them; twice is fine
       ci/cluster.sh kill HOST          end one of them, as when its power fails
       ci/cluster.sh exec HOST COMMAND… run a command there, in this working folder if it is there
       ci/cluster.sh hosts              their names, one a line: a host file for launchers
       ci/cluster.sh status             each host's address, processes and FUSE mounts; exit 1 unless all are up
options of up:
  --slurm        with Slurm: srun, salloc, sbatch, squeue on every host
  --mpi          install MPICH's and Open MPI's mpiexec and clush if they are missing
  --rate RATE    each host's link in both directions, as tc writes it: 500mbit
  --delay TIME   a packet's delay on each link: 1ms; takes a kernel with netem
  --share DIR    a folder below /tmp, /run or /dev/shm that all hosts see; the checkout, Cargo's folder
                 and the cluster's own are anyway; may be given several times
Commands that a user of a cluster types are run on node0, which is the login node, the first host of
every job and Slurm's controller: ci/cluster.sh exec node0 bash. There, ssh, clush, mpiexec.mpich and
mpiexec.openmpi reach all hosts without an option, `clush -a` all of them. The hosts reach each other only.
What is ended is `exec` alone: its command gets SIGTERM then; a signal to the command itself is sent
within the host.
environment:
  COPPER_CLUSTER_DIR  the cluster's folder [default: /tmp/copper-cluster-UID]; two clusters have two
END
    exit 0
}

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
dir=${COPPER_CLUSTER_DIR:-/tmp/copper-cluster-$(id -u)}
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
dir=$(realpath -m -- "$dir")
# Of this cluster alone: everything in the kernel that lasts is a namespace with this name.
prefix=copper-$(printf '%s' "$dir" | cksum | { read -r sum _; printf '%08x' "$sum"; })
switch=$prefix-switch
# The places that each host has to itself.
private=(/tmp /run /dev/shm)

fail() { printf 'cluster.sh: %s\n' "$*" >&2; exit 1; }

address() { printf '10.77.0.%d' $(($1 + 1)); }

# This cluster's namespaces, one a line.
namespaces() {
    local name
    while read -r name _; do
        case $name in "$prefix"-*) printf '%s\n' "$name" ;; esac
    done < <(ip netns list)
}

# The id, as this process sees it, of a host's first process; nothing if the host is not up.
init_of() {
    local pid
    read -r pid 2>/dev/null <"$dir/$1/pid" || return 0
    # A number that outlived its process may be anybody's.
    [ "/proc/$pid/ns/net" -ef "/run/netns/$prefix-$1" ] || return 0
    printf '%s' "$pid"
}

hosts() { [ ! -e "$dir/hosts" ] || cat "$dir/hosts"; }

# Ends what runs in these namespaces, whoever has started it.
end_all() {
    local name pids try
    for ((try = 0; try < 100; try++)); do
        pids=()
        for name in "$@"; do
            mapfile -t -O ${#pids[@]} pids < <(ip netns pids "$name" 2>/dev/null)
        done
        [ ${#pids[@]} -gt 0 ] || return 0
        # Some are gone with the first process of their host.
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.05
    done
    fail "processes ${pids[*]} do not end"
}

clean() {
    local name names
    mapfile -t names < <(namespaces)
    end_all ${names[@]+"${names[@]}"}
    for name in ${names[@]+"${names[@]}"}; do ip netns delete "$name"; done
    [ -e "$dir/.copper-cluster" ] || return 0
    # Mounts below it were the hosts'; never through one of somebody else.
    ! grep -qF " $dir/" /proc/self/mountinfo || fail "something is mounted below $dir, which stays"
    # What says that it is a cluster's goes last: this may be ended in the middle.
    find "$dir" -mindepth 1 -maxdepth 1 ! -name .copper-cluster -exec rm -rf --one-file-system -- {} +
    rm -rf --one-file-system -- "$dir"
}

# The folder, of this user alone, and locked against another `up` or `down`.
claim() {
    [ -e "$dir" ] || [ -L "$dir" ] || { mkdir -p -- "$(dirname -- "$dir")" && mkdir -m 700 -- "$dir"; }
    { [ -d "$dir" ] && [ ! -L "$dir" ] && [ -O "$dir" ]; } ||
        fail "$dir is not a folder of this user: set COPPER_CLUSTER_DIR to another"
    [ -e "$dir/.copper-cluster" ] || [ -z "$(ls -A -- "$dir")" ] ||
        fail "$dir has files that are not a cluster's: set COPPER_CLUSTER_DIR to another"
    exec 9<"$dir"
    # What an `up` that was killed has still running has the lock too.
    flock -w 10 9 || fail "another command is at work on $dir: wait for it"
}

needs_root() {
    [ "$(id -u)" -eq 0 ] || { echo "cluster.sh: namespaces take root: run it as root or with sudo" >&2; exit 2; }
    command -v ip >/dev/null || [ "$1" = up ] || fail "there is no ip: install iproute2"
}

# --- up -------------------------------------------------------------------------------------------

read_up() {
    count='' rate='' delay='' slurm=no mpi=no shares=()
    while [ $# -gt 0 ]; do
        case $1 in
            --rate | --delay | --share) [ $# -ge 2 ] || usage "$1 needs a value" ;;
        esac
        case $1 in
            --rate) rate=$2; shift ;;
            --delay) delay=$2; shift ;;
            --share) shares+=("$2"); shift ;;
            --slurm) slurm=yes ;;
            --mpi) mpi=yes ;;
            -*) usage "there is no option $1" ;;
            *) [ -z "$count" ] || usage "how many hosts, $count or $1?"; count=$1 ;;
        esac
        shift
    done
    [[ $count =~ ^[1-9][0-9]{0,2}$ && $count -le 250 ]] || usage "up takes a number of hosts from 1 to 250, not '$count'"
    [[ $rate =~ ^([1-9][0-9]*[kmg]bit)?$ ]] || usage "--rate is like 500mbit, not '$rate'"
    [[ $delay =~ ^([1-9][0-9]*[mu]s)?$ ]] || usage "--delay is like 1ms, not '$delay'"
    local share
    for share in ${shares[@]+"${shares[@]}"}; do [ -d "$share" ] || usage "--share $share is not a folder"; done
}

# Two MPIs side by side have names of their own; the plain ones stay what they were.
alternatives=(mpirun mpi)

install_missing() {
    local name before=() now
    for name in "${alternatives[@]}"; do before+=("$(readlink "/etc/alternatives/$name" || true)"); done
    packages_only=(iproute2 util-linux openssh-server openssh-client)
    [ "$slurm" = no ] || packages_only+=(munge slurm-client slurmctld slurmd)
    [ "$mpi" = no ] || packages_only+=(mpich openmpi-bin clustershell)
    # shellcheck source=ci/setup.sh
    . "$here/setup.sh"
    for name in "${alternatives[@]}"; do
        now=$(readlink "/etc/alternatives/$name" || true)
        [ -z "${before[0]}" ] || [ "${before[0]}" = "$now" ] || update-alternatives --quiet --set "$name" "${before[0]}"
        before=("${before[@]:1}")
    done
}

# The folders that hosts see though they lie in a place that is each host's own; an inner one comes with
# the outer.
list_shares() {
    local share place last=/nowhere
    while read -r share; do
        for place in "${private[@]}"; do
            case $share/ in
                "$last"/*) ;;
                "$place"/?*) [ ! -d "$share" ] || { printf '%s\n' "$share"; last=$share; } ;;
            esac
        done
    done < <(realpath -m -- "$dir" "$root" "$target" ${shares[@]+"${shares[@]}"} | LC_ALL=C sort -u) >"$dir/shares"
}

write_files() {
    local index
    for ((index = 0; index < count; index++)); do printf 'node%d\n' "$index"; done >"$dir/hosts"
    {
        printf '127.0.0.1 localhost\n'
        for ((index = 0; index < count; index++)); do printf '%s node%d\n' "$(address "$index")" "$index"; done
    } >"$dir/etc-hosts"
    list_shares
    ssh-keygen -q -t ed25519 -N '' -C copper-cluster -f "$dir/key"
    ssh-keygen -q -t ed25519 -N '' -C copper-cluster -f "$dir/host_key"
    printf 'node*,10.77.0.* %s\n' "$(cut -d' ' -f1,2 "$dir/host_key.pub")" >"$dir/known_hosts"
    cat >"$dir/ssh_config" <<END
Host *
    User root
    IdentityFile $dir/key
    IdentitiesOnly yes
    BatchMode yes
    GlobalKnownHostsFile $dir/known_hosts
    UserKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    ConnectTimeout 10
END
    # As many connections at once as a launcher likes.
    cat >"$dir/sshd_config" <<END
HostKey $dir/host_key
AuthorizedKeysFile $dir/key.pub
AllowUsers root
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PidFile none
PrintMotd no
MaxStartups 500
MaxSessions 500
LogLevel ERROR
Subsystem sftp internal-sftp
END
    mkdir "$dir/clustershell"
    printf '[Main]\nfanout: 250\nconnect_timeout: 15\ncommand_timeout: 0\n' >"$dir/clustershell/clush.conf"
    printf '[Main]\ndefault: cluster\n[cluster]\nmap: grep -v "^$" %s\nall: cat %s\nlist: echo all\n' \
        "$dir/hosts" "$dir/hosts" >"$dir/clustershell/groups.conf"
    if [ "$slurm" = yes ]; then write_slurm; fi
}

# Jobs get whole hosts; nothing of the machine's cgroups is used.
write_slurm() {
    mkdir "$dir/slurm" "$dir/slurm/state"
    head -c 128 /dev/urandom >"$dir/slurm/munge.key"
    chmod 400 "$dir/slurm/munge.key"
    # Named, it is not looked for; with linuxproc and none below it is not used.
    echo 'CgroupPlugin=cgroup/v1' >"$dir/slurm/cgroup.conf"
    cat >"$dir/slurm/slurm.conf" <<END
ClusterName=copper
SlurmctldHost=node0($(address 0))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/slurm/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/slurm/state
SlurmdSpoolDir=$dir/%n/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=$dir/slurm/slurmctld.log
SlurmdLogFile=$dir/%n/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName=node[0-$((count - 1))] CPUs=$(nproc) RealMemory=1024 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

# A device's rate and delay: in namespace $1, device $2.
shape() {
    local parent=(root)
    if [ -n "$rate" ]; then
        tc -n "$1" qdisc add dev "$2" root handle 1: htb default 1
        tc -n "$1" class add dev "$2" parent 1: classid 1:1 htb rate "$rate" quantum 60000
        parent=(parent 1:1)
    fi
    if [ -n "$delay" ]; then
        tc -n "$1" qdisc add dev "$2" "${parent[@]}" netem delay "$delay" limit 10000 2>/dev/null ||
            fail "this kernel has no netem, which --delay takes: leave it out, or try modprobe sch_netem"
    fi
}

wire() {
    local index=$1 space=$prefix-node$1
    ip netns add "$space"
    ip -n "$space" -batch - <<END
link set lo up
link add eth0 type veth peer name port$index netns $switch
addr add $(address "$index")/16 dev eth0
link set eth0 up
END
    ip -n "$switch" link set "port$index" master bridge up
    shape "$space" eth0
    shape "$switch" "port$index"
}

# Starts a host's first process and writes down its number.
boot() {
    local name=node$1 pid try
    local places=("${private[@]/#/$dir/$name}")
    mkdir -p "${places[@]}"
    chmod 1777 "$dir/$name/tmp"
    # The variable by which a run of the tests finds its processes.
    setsid nsenter --net="/run/netns/$prefix-$name" \
        unshare --mount --uts --ipc --pid --fork --mount-proc --propagation private \
        env -i PATH="$PATH" HOME="$HOME" LANG=C.UTF-8 ${COPPER_TEST_RUN:+COPPER_TEST_RUN="$COPPER_TEST_RUN"} \
        "$here/cluster-host.sh" "$dir" "$name" "${private[@]}" \
        </dev/null >"$dir/$name/log" 2>&1 9>&- &
    disown
    for ((try = 0; try < 200; try++)); do
        for pid in $(ip netns pids "$prefix-$name"); do
            # Number 1 in the innermost of its two process namespaces.
            if grep -q '^NSpid:.*[[:space:]]1$' "/proc/$pid/status" 2>/dev/null; then
                echo "$pid" >"$dir/$name/pid"
                return
            fi
        done
        sleep 0.02
    done
    fail "$name does not start: $(tail -n 1 "$dir/$name/log")"
}

# Until every host's sshd answers, and Slurm has counted every host.
await() {
    local index name
    for ((index = 0; index < count; index++)); do
        name=node$index
        within 10 eval "in_host node0 bash -c ': </dev/tcp/$name/22' 2>/dev/null" ||
            fail "$name's sshd does not answer: $(tail -n 1 "$dir/$name/log")"
    done
    [ "$slurm" = yes ] || return 0
    within 30 eval "[ \"\$(in_host node0 sinfo -h -N -t idle 2>/dev/null | wc -l)\" -eq $count ]" ||
        fail "Slurm's hosts are not all idle: $(in_host node0 sinfo -h 2>&1 | tail -n 1); see $dir/slurm/slurmctld.log"
}

within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt "$end" ] || return 1
        sleep 0.1
    done
}

up() {
    local index
    read_up "$@"
    needs_root up
    install_missing
    claim
    [ ! -e "$dir/ready" ] || [ -z "$(init_of node0)" ] ||
        fail "there is a cluster of $(hosts | wc -l) hosts in $dir already: ci/cluster.sh down, or set COPPER_CLUSTER_DIR"
    clean
    exec 9<&-
    claim
    : >"$dir/.copper-cluster"
    # An `up` that does not succeed leaves nothing.
    trap 'code=$?; trap - EXIT; clean; exit $code' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    write_files
    ip netns add "$switch"
    ip -n "$switch" link add bridge type bridge
    ip -n "$switch" link set bridge up
    for ((index = 0; index < count; index++)); do wire "$index"; done
    for ((index = 0; index < count; index++)); do boot "$index"; done
    await
    : >"$dir/ready"
    trap - EXIT
    echo "cluster.sh: $count hosts are up: ci/cluster.sh exec node0 bash; to end them: ci/cluster.sh down"
}

# --- exec, status ---------------------------------------------------------------------------------

# Sets `entry` to the words that run what follows them in a host, and end it if what runs them here ends.
enter() {
    local pid
    pid=$(init_of "$1")
    [ -n "$pid" ] || fail "$1 is not up: $(hosts | wc -l) hosts are in $dir"
    # shellcheck disable=SC2016
    entry=(nsenter --target "$pid" --mount --uts --ipc --net --pid -- setpriv --pdeathsig TERM
        env -u XDG_RUNTIME_DIR -u SSH_AUTH_SOCK SLURM_CONF="$dir/slurm/slurm.conf"
        CLUSTERSHELL_CFGDIR="$dir/clustershell" COPPER_CLUSTER_DIR="$dir"
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        sh -c 'cd "$1" 2>/dev/null || cd /; [ -d "${TMPDIR:-/}" ] || unset TMPDIR; shift; exec "$@"' sh "$PWD")
}

in_host() {
    local entry
    enter "$1"
    shift
    "${entry[@]}" "$@"
}

status() {
    local index=0 name pid bad=0
    if [ ! -e "$dir/ready" ]; then
        echo "$dir: no cluster, namespaces would be $prefix-*"
        return 1
    fi
    echo "$dir: $(hosts | wc -l) hosts, namespaces $prefix-*"
    while read -r name; do
        pid=$(init_of "$name")
        if [ -n "$pid" ]; then
            printf '%s up, %s, %d processes, %d FUSE mounts\n' "$name" "$(address "$index")" \
                "$(ip netns pids "$prefix-$name" | wc -l)" "$(grep -c ' fuse[. ]' "/proc/$pid/mounts" || true)"
        else
            printf '%s down\n' "$name"
            bad=1
        fi
        index=$((index + 1))
    done <"$dir/hosts"
    return $bad
}

[ $# -gt 0 ] || usage "what shall it do?"
command=$1
shift
case $command in
    -h | --help) help ;;
    up) case " $* " in *" --help "* | *" -h "*) help ;; esac; up "$@" ;;
    down)
        [ $# -eq 0 ] || usage "down takes nothing, not '$1'"
        needs_root down
        [ -n "$(namespaces)" ] || [ -e "$dir" ] || exit 0
        claim
        clean
        rmdir -- "$dir" 2>/dev/null || true
        ;;
    exec)
        [ $# -ge 2 ] || usage "exec takes a host and a command"
        needs_root exec
        enter "$1"
        shift
        exec "${entry[@]}" "$@"
        ;;
    kill)
        [ $# -eq 1 ] || usage "kill takes a host"
        needs_root kill
        [ -n "$(init_of "$1")" ] || fail "$1 is not up"
        ip -n "$prefix-$1" link set eth0 down
        end_all "$prefix-$1"
        ;;
    hosts) [ $# -eq 0 ] || usage "hosts takes nothing, not '$1'"; hosts ;;
    status)
        [ $# -eq 0 ] || usage "status takes nothing, not '$1'"
        needs_root status
        status
        ;;
    *) usage "there is no command $command" ;;
esac
