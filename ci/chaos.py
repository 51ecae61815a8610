"""The injecting part of ci/chaos.sh, which builds, starts the hosts and, however this ends, ends them.

Launches a rank on each host, starts readers there (ci/chaos-reader.py), and injects faults in an order
that the seed gives, one or two at a time and never two on one host. At last the root dies. Then every
host that still has a daemon must show all of the source as it is, `copper stop` must leave nothing, and
what the readers have written down is judged:

- no byte that the source has not had, and no file of two generations: none at all;
- no read that took longer than the deadline: none at all;
- an errno only while something explains it: a fault on the host or on one of its ancestors, or not long
  before; or, of a file that has changed, ESTALE.

Exit 0: all of it holds. 1: it does not.
"""

import argparse
import collections
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

READER = "chaos-reader.py"
VIEW = "/tmp/copper-view"
# A tmpfs of each host: what a fault fills is not the disk of this machine.
LOCAL_DISK = "/run"
RUN = f"{LOCAL_DISK}/copper-run"
MEMORY, SPILL = "64MiB", "16MiB"
FANOUT = 2
# Together more than the memory of a rank: blocks come and go all the time.
FILES = {"small": (150, 1, 60_000), "middling": (24, 1 << 20, 3 << 20), "large": (4, 14 << 20, 18 << 20)}
CHANGED_NAMES = re.compile("small|middling")

FAULT_SECONDS = (1.0, 8.0)
PAUSE_SECONDS = (0.2, 2.5)
FAULTS_MAX = 2
# Weights. `host` once at most, for there is no way back.
KINDS = {"kill": 4, "stop": 3, "cut": 3, "slow": 3, "fill": 2, "change": 4, "host": 1}
RATES = ("1mbit", "5mbit", "20mbit")
# A host that is cut off is given up after 5 s, and searches then; a request ends within 30 s.
AFTERMATH_SECONDS = 40
DEADLINE_SECONDS = 60
# In which every host has to have shown all files once.
RECOVERY_SECONDS = 90
# With the root dead.
ROOTLESS_SECONDS = 8
COMMAND_SECONDS_MAX = 120
# `cluster` is ci/cluster.sh, `copper` the program.
ARGUMENTS = {"work": str, "cluster": str, "copper": str, "seconds": int, "seed": int, "hosts": int}
COUNTERS = {"fabric": ("pulls", "retries", "quarantined", "checksum_failures", "violations")}


def say(text):
    print(f"chaos: {text}", flush=True)


# Whether a view shows all files: the view, the source, its generations, and what has changed.
COMPARE = """
import errno, os, sys
view, source, truth, *changed = sys.argv[1:]
for name in sorted(name for name in os.listdir(truth) if not name.startswith(".")):
    try:
        with open(f"{view}{source}/{name}", "rb") as file:
            data = file.read()
    except OSError as error:
        if error.errno == errno.ESTALE and name in changed:
            continue
        raise
    folder = f"{truth}/{name}"
    assert any(open(f"{folder}/{number}", "rb").read() == data for number in os.listdir(folder)), name
"""


class Cluster:
    """The hosts of ci/cluster.sh."""

    def __init__(self, script, count):
        self.script = script
        self.names = [f"node{index}" for index in range(count)]
        status = subprocess.run([script, "status"], capture_output=True, text=True, check=True).stdout
        self.prefix = re.search(r"namespaces (\S+)-\*", status)[1]

    def space(self, host):
        return f"{self.prefix}-{host}"

    def start(self, host, words, **settings):
        return subprocess.Popen([self.script, "exec", host, *words], **settings)

    def run(self, host, words, check=True):
        done = subprocess.run([self.script, "exec", host, *words], capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX)
        if check and done.returncode != 0:
            raise RuntimeError(f"{host}: {' '.join(words[:4])}: {done.stdout}{done.stderr}")
        return done

    def pids(self, host):
        listed = subprocess.run(["ip", "netns", "pids", self.space(host)], capture_output=True, text=True).stdout
        return [int(pid) for pid in listed.split()]

    def daemon(self, host):
        """The number of its daemon, as it is here; one that comes back may be just starting."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for pid in self.pids(host):
                words = command_line(pid)
                if is_copper(words) and words[1:2] == [b"serve"]:
                    return pid
            time.sleep(0.05)
        return None


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[:-1]
    except OSError:
        return []


def is_copper(words):
    return bool(words) and os.path.basename(words[0]) == b"copper"


class Source:
    """The files, and beside them every generation that they have had."""

    def __init__(self, work, chance):
        self.folder, self.truth, self.chance = f"{work}/source", f"{work}/truth", chance
        os.makedirs(self.folder)
        for kind, (count, least, most) in FILES.items():
            for index in range(count):
                self.add(f"{kind}-{index}", chance.randrange(least, most))
        self.names = sorted(os.listdir(self.truth))
        self.changed = {}

    def add(self, name, size):
        os.makedirs(f"{self.truth}/{name}")
        self.replace(name, self.chance.randbytes(size))

    def replace(self, name, data):
        """By another file, as an installer does."""
        self.remember(name, data)
        with open(f"{self.folder}/.{name}", "wb") as file:
            file.write(data)
        os.rename(f"{self.folder}/.{name}", f"{self.folder}/{name}")

    def remember(self, name, data):
        number = len(os.listdir(f"{self.truth}/{name}"))
        # Readers list the folder: whole or not at all.
        with open(f"{self.truth}/.part", "wb") as file:
            file.write(data)
        os.rename(f"{self.truth}/.part", f"{self.truth}/{name}/{number}")

    def change(self):
        """Cuts a file short, or puts another in its place."""
        name = self.chance.choice([name for name in self.names if CHANGED_NAMES.match(name)])
        self.changed.setdefault(name, time.monotonic())
        path = f"{self.folder}/{name}"
        size = os.stat(path).st_size
        if size > 1 and self.chance.random() < 0.4:
            with open(path, "rb") as file:
                data = file.read(self.chance.randrange(1, size))
            self.remember(name, data)
            os.truncate(path, len(data))
            return f"cut {name} to {len(data)} bytes"
        self.replace(name, self.chance.randbytes(self.chance.randrange(1, max(2, 2 * size))))
        return f"replaced {name}"


class Fault:
    """Something that is wrong with a host from `begun` on, until `ends`."""

    def __init__(self, kind, host, begun):
        self.kind, self.host, self.begun = kind, host, begun
        self.ends, self.undo, self.over = None, None, None


class Chaos:
    def __init__(self, options):
        self.options = options
        self.chance = random.Random(options.seed)
        self.cluster = Cluster(options.cluster, options.hosts)
        self.hosts = self.cluster.names
        self.faults, self.counts, self.problems = [], collections.Counter(), []
        self.dead = set()  # hosts without a daemon, for good
        self.off = set()  # of these, those that are no more
        self.orders, self.readers = {}, {}
        self.log = f"{options.work}/readers"
        os.makedirs(self.log)

    # --- start

    def launch(self):
        for host in self.hosts:
            self.cluster.run(host, ["mkdir", "-m", "700", RUN])
        with open(f"{self.options.work}/hosts", "w", encoding="utf-8") as file:
            file.write("".join(f"{host}\n" for host in self.hosts))
        words = ["launch", "--hosts", f"{self.options.work}/hosts", "--launcher", "ssh", "--net", "tcp"]
        words += ["--fanout", str(FANOUT), "--memory", MEMORY, "--spill", LOCAL_DISK, "--spill-size", SPILL]
        words += ["-v", VIEW, "-d", f"{self.options.work}/logs", "-l", "info"]
        say(self.copper("node0", words).stdout.strip().splitlines()[-1])
        for host in self.hosts:
            self.orders[host] = self.orders_of(self.cluster.daemon(host))

    def copper(self, host, words, check=True):
        return self.cluster.run(host, ["env", f"COPPER_RUN_DIR={RUN}", self.options.copper, *words], check)

    @staticmethod
    def orders_of(pid):
        """What its daemon was started with: words, and what came through its standard input."""
        words = [word.decode() for word in command_line(pid)]
        for name in ("--ready-fd", "--listen-fd"):
            if name in words:
                at = words.index(name)
                del words[at : at + 2]
        with open(f"/proc/{pid}/fd/0", "rb") as file:
            return words, file.read()

    def start_readers(self):
        for index, host in enumerate(self.hosts):
            words = [sys.executable, f"{os.path.dirname(__file__)}/{READER}", "--view", VIEW]
            words += ["--source", self.source.folder, "--truth", self.source.truth, "--log", f"{self.log}/{host}"]
            words += ["--seed", str(self.options.seed * 100 + index), "--deadline", str(DEADLINE_SECONDS)]
            self.readers[host] = self.cluster.start(host, words)

    # --- faults

    def inject(self):
        busy = {fault.host for fault in self.faults if fault.over is None}
        free = [host for host in self.hosts if host not in busy | self.dead]
        if not free:
            return
        kind = self.chance.choices(list(KINDS), list(KINDS.values()))[0]
        host = self.chance.choice(free)
        if kind in ("kill", "host") and host == self.hosts[0]:
            # The root is the last to die.
            kind = "stop"
        if kind == "host" and (self.counts["host"] > 0 or self.options.seconds < 60):
            kind = "kill"
        seconds = self.chance.uniform(*FAULT_SECONDS)
        fault = Fault(kind, host, time.monotonic())
        undo, what = getattr(self, f"inject_{kind}")(host)
        self.counts[kind] += 1
        where = "" if kind == "change" else f" on {host} for {seconds:.1f} s" if undo else f" on {host}"
        say(f"{time.monotonic() - self.begun:6.1f} s: {kind}{where}{what}")
        fault.ends, fault.undo = time.monotonic() + seconds, undo
        fault.over = None if undo else time.monotonic()
        self.faults.append(fault)

    def inject_kill(self, host):
        daemon = self.cluster.daemon(host)
        if daemon is None:
            # One that came back and ended again.
            self.problems.append(f"{host} has no daemon, see {self.log_of(host)}")
        else:
            os.kill(daemon, signal.SIGKILL)
        # Most come back.
        if self.chance.random() < 0.8 or len(self.dead) * 3 >= len(self.hosts):
            return lambda: self.revive(host), ""
        self.dead.add(host)
        return None, " for good"

    def inject_host(self, host):
        subprocess.run([self.options.cluster, "kill", host], check=True)
        self.dead.add(host)
        self.off.add(host)
        return None, ", all of it"

    def inject_stop(self, host):
        pid = self.cluster.daemon(host)
        if pid is None:
            self.problems.append(f"{host} has no daemon, see {self.log_of(host)}")
            return None, ", but there is none"
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT), ""

    def inject_cut(self, host):
        link = ["ip", "-n", self.cluster.space(host), "link", "set", "eth0"]
        subprocess.run([*link, "down"], check=True)
        return lambda: subprocess.run([*link, "up"], check=True), ""

    def inject_slow(self, host):
        rate = self.chance.choice(RATES)
        tc = ["tc", "-n", self.cluster.space(host), "qdisc"]
        subprocess.run([*tc, "add", "dev", "eth0", "root", "handle", "1:", "htb", "default", "1"], check=True)
        tc_class = [*tc[:-1], "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:1", "htb", "rate", rate]
        subprocess.run([*tc_class, "quantum", "60000"], check=True)
        return lambda: subprocess.run([*tc, "del", "dev", "eth0", "root"], check=True), f", {rate}"

    def inject_fill(self, host):
        file = f"{LOCAL_DISK}/filling"
        self.cluster.run(host, ["dd", "if=/dev/zero", f"of={file}", "bs=64k"], check=False)
        return lambda: self.empty(host, file), ""

    def empty(self, host, file):
        """Makes room again. A daemon that was coming back has found none for its record, and has said so."""
        self.cluster.run(host, ["rm", "-f", file])
        if host not in self.dead and self.cluster.daemon(host) is None and "No space left" in self.log_of(host):
            self.counts["kept out"] += 1
            self.revive(host)

    def inject_change(self, _host):
        what = self.source.change()
        if self.chance.random() < 0.5:
            # Ranks that do not answer are named, and it fails.
            refreshed = self.copper(self.hosts[0], ["refresh", "-v", VIEW], check=False) if self.root_answers() else None
            what += ", not refreshed" if refreshed is None else f", refreshed ({refreshed.returncode})"
        return None, f": {what}"

    def root_answers(self):
        return all(fault.host != self.hosts[0] or fault.over for fault in self.faults)

    def revive(self, host):
        """Starts a daemon as the one that was killed, by hand."""
        words, orders = self.orders[host]
        file = f"{self.options.work}/orders-{host}"
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as written:
            written.write(orders)
        # In the background: nsenter, which starts it, would stop as its child does, and not go on with it.
        start = 'input=$1 log=$2; shift 2; setsid "$@" <"$input" >>"$log" 2>&1 &'
        start = ["sh", "-c", start, "sh", file, f"{self.options.work}/logs/revived-{host}"]
        # Its parent may be dead for good: after a second it tries other ancestors too.
        self.cluster.run(host, [*start, "env", f"COPPER_RUN_DIR={RUN}", *words, "--patience", "1"])
        self.counts["came back"] += 1

    def undo(self, now):
        for fault in self.faults:
            if fault.over is None and fault.ends <= now:
                fault.undo()
                fault.over = time.monotonic()

    def storm(self):
        end, due = self.begun + self.options.seconds, self.begun + 1
        while (now := time.monotonic()) < end:
            self.undo(now)
            if now >= due and sum(fault.over is None for fault in self.faults) < FAULTS_MAX:
                self.inject()
                due = time.monotonic() + self.chance.uniform(*PAUSE_SECONDS)
            time.sleep(0.05)
        self.undo(float("inf"))

    # --- the end

    def await_mounts(self):
        """A rank that comes back does not come up where no ancestor is left: each is to have joined before
        the root dies."""
        waiting = set(self.hosts) - self.dead
        end = time.monotonic() + COMMAND_SECONDS_MAX
        while waiting and time.monotonic() < end:
            waiting = {host for host in waiting if " fuse" not in self.mounts(host)}
            time.sleep(0.2)
        for host in waiting:
            self.problems.append(f"{host} has not come back, see {self.log_of(host)}")

    def mounts(self, host):
        return self.cluster.run(host, ["cat", "/proc/self/mounts"]).stdout

    def log_of(self, host):
        """The last line of a daemon that came back."""
        path = f"{self.options.work}/logs/revived-{host}"
        if not os.path.exists(path):
            return "its log: none, it has never come back"
        with open(path, encoding="utf-8", errors="replace") as file:
            return f"its log: {(file.read().splitlines() or ['empty'])[-1]}"

    def kill_root(self):
        self.await_mounts()
        root = self.hosts[0]
        say(f"{time.monotonic() - self.begun:6.1f} s: kill on {root}, the root")
        fault = Fault("root", root, time.monotonic())
        os.kill(self.cluster.daemon(root), signal.SIGKILL)
        fault.over = fault.begun
        self.faults.append(fault)
        self.counts["root"] += 1
        self.dead.add(root)
        time.sleep(ROOTLESS_SECONDS)

    def check_recovery(self):
        """Every host that has a daemon shows each file as some generation that it has had, within the bound;
        ESTALE for what has changed is as good, as there is no root that could refresh it."""
        living = [host for host in self.hosts if host not in self.dead]
        begun = time.monotonic()
        waiting = {host: None for host in living}
        words = [sys.executable, "-c", COMPARE, VIEW, self.source.folder, self.source.truth, *self.source.changed]
        while waiting and time.monotonic() < begun + RECOVERY_SECONDS:
            for host, process in list(waiting.items()):
                if process is None:
                    waiting[host] = self.cluster.start(host, words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                elif process.poll() == 0:
                    del waiting[host]
                elif process.poll() is not None:
                    waiting[host] = None
            time.sleep(0.2)
        for host, process in waiting.items():
            self.problems.append(f"{host} does not recover")
            if process:
                process.kill()
        say(f"{len(living) - len(waiting)} of {len(living)} hosts show everything {time.monotonic() - begun:.1f} s later")

    def count(self):
        """What the living ranks have counted since they were started."""
        sums, states = collections.Counter(), collections.Counter()
        for host in set(self.hosts) - self.dead:
            status = self.copper(host, ["status", "--json", "-v", VIEW], check=False).stdout
            own = next((rank for rank in json.loads(status)["ranks"] if rank.get("host") == host), {})
            if "fabric" not in own:
                self.problems.append(f"{host} does not answer: {json.dumps(own)}")
                continue
            states[own["state"]] += 1
            for group, names in COUNTERS.items():
                sums.update({name: own[group][name] for name in names})
        for name in ("checksum_failures", "violations"):
            if sums[name]:
                self.problems.append(f"{sums[name]} {name}")
        said = [f"{name} {counter[name]}" for counter in (states, sums) for name in sorted(counter)]
        say("the living: " + ", ".join(said))

    def stop(self):
        for host, reader in self.readers.items():
            if host not in self.off:
                for pid in self.cluster.pids(host):
                    if any(word.endswith(READER.encode()) for word in command_line(pid)[1:2]):
                        os.kill(pid, signal.SIGTERM)
            try:
                reader.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.problems.append(f"{host}: its readers do not end")
        alive = next((host for host in self.hosts if host not in self.off), None)
        stopped = self.copper(alive, ["stop", "-v", VIEW], check=False)
        if stopped.returncode != 0 and not self.off:
            self.problems.append(f"copper stop: {stopped.stderr.strip()}")
        say(f"copper stop: {(stopped.stdout + stopped.stderr).strip()}")
        for host in self.hosts:
            if host not in self.off:
                self.look_for_leftovers(host)

    def look_for_leftovers(self, host):
        look = f"grep ' fuse' /proc/self/mounts; ls -d {VIEW} 2>/dev/null; ls -A {RUN}; true"
        left = self.cluster.run(host, ["sh", "-c", look]).stdout.split("\n")
        left += [f"process {pid}" for pid in self.cluster.pids(host) if is_copper(command_line(pid))]
        # What is to be stopped on a host that is gone is remembered, so that it can be tried again.
        left = [line for line in left if line and not (self.off and line.endswith(".launch"))]
        for line in left:
            self.counts["left behind"] += 1
            self.problems.append(f"{host}: left behind: {line}")

    # --- the verdict

    def ancestors(self, host):
        rank = self.hosts.index(host)
        yield host
        while rank > 0:
            rank = (rank - 1) // FANOUT
            yield self.hosts[rank]

    def explained(self, host, event):
        above = set(self.ancestors(host))
        if event["errno"] == errno.ESTALE and self.source.changed.get(event["name"], float("inf")) <= event["ended"]:
            return True
        # That there is no mount, or a dead one, is explained by the death of the host's own daemon only.
        own = event["errno"] in (errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED)
        above = {host} if own else above
        return any(
            fault.host in above
            and fault.begun <= event["ended"]
            and (fault.host in self.dead or fault.over + AFTERMATH_SECONDS >= event["begun"])
            for fault in self.faults
            if (fault.kind in ("kill", "root", "host") if own else fault.kind not in ("change", "fill"))
        )

    def judge(self):
        totals, longest = collections.Counter(), 0.0
        for host in self.hosts:
            last = {}
            with open(f"{self.log}/{host}", encoding="utf-8") as file:
                for line in file:
                    if not line.endswith("\n"):
                        continue  # its host was ended in the middle of it
                    event = json.loads(line)
                    kind = event["event"]
                    if kind == "totals":
                        last = event
                        continue
                    if kind == "errno" and self.explained(host, event):
                        totals[f"errno {errno.errorcode.get(event['errno'])}"] += 1
                        continue
                    totals[f"{kind}, unexplained" if kind == "errno" else kind] += 1
                    self.problems.append(f"{host}: {json.dumps(event)} ({time_of(event, self.begun)})")
            totals.update({what: last.get(what, 0) for what in ("reads", "bytes")})
            longest = max(longest, last.get("longest", 0))
        injected = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        say(f"injected: {injected}")
        errnos = ", ".join(f"{count} {kind}" for kind, count in sorted(totals.items()) if kind.startswith("errno"))
        say(f"{totals['reads']} files read, {totals['bytes'] >> 20} MiB compared; errno: {errnos or 'none'}")
        say(
            f"wrong {totals['wrong']}, over {DEADLINE_SECONDS} s {totals['overdue']}, longest {longest:.1f} s, "
            f"unexplained errno {totals['errno, unexplained']}, left behind {self.counts['left behind']}"
        )

    def run(self):
        self.source = Source(self.options.work, self.chance)
        self.begun = time.monotonic()
        self.launch()
        self.begun = time.monotonic()
        self.start_readers()
        self.storm()
        self.kill_root()
        self.check_recovery()
        self.count()
        self.stop()
        self.judge()
        for problem in self.problems[:20]:
            say(f"PROBLEM: {problem}")
        return 1 if self.problems else 0


def time_of(event, begun):
    return f"{event['begun'] - begun:.1f} to {event.get('ended', event['begun']) - begun:.1f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, kind in ARGUMENTS.items():
        parser.add_argument(f"--{name}", required=True, type=kind)
    sys.exit(Chaos(parser.parse_args()).run())


if __name__ == "__main__":
    main()
