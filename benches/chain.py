"""The measuring part of ci/bench-chain.sh, which builds and, however this ends, cleans.

Ranks 0 to 4 are daemons in network namespaces of their own, joined by one bridge; each link is limited
by htb in both directions. Rank 0 reads the source, each other rank has the one before as its parent. A
file that nobody has read is read on rank 1, another on rank 4, in pairs and in changing order: the
median of the pairs' ratios counts. Every file is compared with the source afterwards.

Exit 0: every bar is kept. 1: one is not. 3: it could not be measured.
"""

import argparse
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import time

DEPTHS = (1, 4)
RANKS = DEPTHS[-1] + 1
BAR = 1.15
MIB = 1 << 20
PORT = 7911
READY_SECONDS = 60
READ_SECONDS = 300
# What depth 1 may take beside the link's own time: if it takes longer, something else limits, and the
# ratio says nothing of the chain.
LINK_BAR = 1.25


class Failure(Exception):
    """It cannot go on, and why."""


def say(text):
    print(f"bench: {text}", flush=True)


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, timeout=READ_SECONDS, **options)  # fmt: skip
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: {done.stdout.decode(errors='replace').strip()[-300:]}")
    return done.stdout


class Network:
    """The namespaces: one for the bridge, one for each rank. They are removed by name, and with them
    all that is in them."""

    def __init__(self, prefix, rate):
        self.prefix, self.rate = prefix, rate

    def name(self, rank):
        return f"{self.prefix}-{rank}"

    def address(self, rank):
        return f"10.99.0.{rank + 1}"

    def make(self):
        switch = f"{self.prefix}-switch"
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge", "up")
        for rank in range(RANKS):
            name = self.name(rank)
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", switch, "link", "add", f"port{rank}", "type", "veth", "peer", "name", "fabric", "netns", name)
            run("ip", "-n", switch, "link", "set", f"port{rank}", "master", "bridge", "up")
            run("ip", "-n", name, "addr", "add", f"{self.address(rank)}/24", "dev", "fabric")
            run("ip", "-n", name, "link", "set", "fabric", "up")
            self.limit(name, "fabric")
            self.limit(switch, f"port{rank}")

    def limit(self, namespace, device):
        # A burst of some segments as large as the kernel hands them to a virtual link.
        run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1")
        run("tc", "-n", namespace, "class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb",
            "rate", f"{self.rate}mbit", "burst", "256kb", "cburst", "256kb")  # fmt: skip


class Chain:
    """The daemons, started by hand as a user without a launcher does."""

    def __init__(self, options, network):
        self.options, self.network = options, network
        self.views = os.path.join(options.work, "views")
        self.daemons = []
        # Made before anybody looks: a name that comes into a listed folder is not seen.
        count = 2 * len(READERS) * (options.pairs + 1)
        self.folders = [os.path.join(options.data, str(number)) for number in range(count)]

    def start(self):
        for folder in self.folders:
            os.mkdir(folder)
        secret = os.path.join(self.options.work, "secret")
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(32).hex().encode())
        peers = ",".join(f"{self.network.address(rank)}:{PORT}" for rank in range(RANKS))
        for rank in range(RANKS):
            view = os.path.join(self.views, str(rank))
            os.makedirs(view)
            with open(os.path.join(self.options.work, "logs", f"{rank}.log"), "wb") as log:
                self.daemons.append(subprocess.Popen(
                    ["nsenter", f"--net=/run/netns/{self.network.name(rank)}", self.options.copper, "serve",
                     "--rank", str(rank), "--size", str(RANKS), "--peers", peers, "--fanout", "1", "--net", "tcp",
                     "--secret-file", secret, "--job", "bench-chain", "--memory", self.options.memory,
                     "--source", "none" if rank else "direct", "-v", view],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log))  # fmt: skip
        until = time.monotonic() + READY_SECONDS
        while [self.state(rank) for rank in range(RANKS)] != ["ready"] * RANKS:
            for rank, daemon in enumerate(self.daemons):
                if daemon.poll() is not None:
                    raise Failure(f"rank {rank} ended with exit code {daemon.returncode}: see its log")
            if time.monotonic() > until:
                raise Failure(f"the ranks are not ready after {READY_SECONDS} s")
            time.sleep(0.1)

    def status(self, rank):
        done = subprocess.run([self.options.copper, "status", "--json", "-v", os.path.join(self.views, str(rank))],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              check=False, timeout=30)  # fmt: skip
        try:
            return json.loads(done.stdout)["ranks"][0]
        except (ValueError, LookupError):
            return {}

    def state(self, rank):
        return self.status(rank).get("state")

    def fresh_folder(self):
        """A folder that no rank has listed."""
        return self.folders.pop()

    def path(self, rank, path):
        return os.path.join(self.views, str(rank)) + path

    def stop(self):
        # From the leaf up: nobody looks for another parent.
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=30)
        self.daemons = []


def read_by_dd(path):
    run("dd", f"if={path}", "of=/dev/null", "bs=1M")


def read_by_map(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        for offset in range(0, len(view), mmap.PAGESIZE):
            _ = view[offset]


READERS = {"dd": read_by_dd, "mmap": read_by_map}


def processor():
    """Seconds of all processors: busy, and in all."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = list(map(int, file.readline().split()[1:9]))
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def measure(chain, reader, rank, size):
    """Seconds of one cold reading on a rank, the processors' load meanwhile, and what it counted."""
    path = os.path.join(chain.fresh_folder(), "file")
    with open(path, "wb") as file:
        block = os.urandom(MIB)
        for index in range(size // MIB):
            file.write(index.to_bytes(8, "little") + block[8:])
    shown = chain.path(rank, path)
    if os.stat(shown).st_size != size:
        raise Failure(f"{shown} has another size than its source")
    before, counted = processor(), chain.status(rank)
    start = time.perf_counter()
    READERS[reader](shown)
    seconds = time.perf_counter() - start
    after, counts = processor(), chain.status(rank)
    run("cmp", path, shown)
    os.unlink(path)
    new = {name: value - counted["cache"][name] for name, value in counts["cache"].items()
           if name.startswith(("fetched_ahead", "misses", "starved"))}  # fmt: skip
    return seconds, (after[0] - before[0]) / max(1, after[1] - before[1]), new


def compare(chain, reader, options):
    """The ratio of the depths' times over the pairs."""
    size = options.mib * MIB
    seconds, ratios, loads = {depth: [] for depth in DEPTHS}, [], []
    for pair in range(options.pairs + 1):
        took = {}
        for depth in DEPTHS if pair % 2 else reversed(DEPTHS):
            took[depth], load, counts = measure(chain, reader, depth, size)
            loads.append(load)
            say(f"{reader}, depth {depth}: {took[depth]:.3f} s, load {load:.2f}, {counts}")
        # The first pair makes connections and has memory put behind the arenas.
        if pair > 0:
            ratios.append(took[DEPTHS[-1]] / took[DEPTHS[0]])
            for depth in DEPTHS:
                seconds[depth].append(took[depth])
    floor = size * 8 / (options.rate * 1e6)
    ratio, load = statistics.median(ratios), max(loads)
    medians = {depth: statistics.median(seconds[depth]) for depth in DEPTHS}
    link = medians[DEPTHS[0]] / floor
    kept = ratio <= BAR and link <= LINK_BAR
    say(f"{'ok  ' if kept else 'MISS'} {reader}: depth {DEPTHS[-1]} / depth {DEPTHS[0]} = {ratio:.3f} (bar {BAR}), "
        f"{min(ratios):.3f} to {max(ratios):.3f}; {medians[DEPTHS[-1]]:.3f} s / {medians[DEPTHS[0]]:.3f} s, "
        f"depth {DEPTHS[0]} takes {link:.2f} times what the link alone does (bar {LINK_BAR}); all that runs here kept "
        f"{load:.0%} of the processors busy")  # fmt: skip
    return {"reader": reader, "ratio": ratio, "ratios": ratios, "seconds": medians, "link_seconds": floor, "link_ratio": link,
            "load_max": load, "kept": kept}  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    for name in ("copper", "data", "work", "prefix", "memory"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("pairs", "mib", "rate"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--only", choices=READERS)
    parser.add_argument("--json")
    options = parser.parse_args()
    network = Network(options.prefix, options.rate)
    chain = Chain(options, network)
    try:
        network.make()
        chain.start()
        rows = [compare(chain, reader, options) for reader in READERS if options.only in (None, reader)]
        chain.stop()
    except (Failure, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"mib": options.mib, "rate_mbit": options.rate, "pairs": options.pairs, "figures": rows}, file,
                      indent=1)  # fmt: skip
    return 0 if all(row["kept"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
