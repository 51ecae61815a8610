"""The measuring part of ci/bench-frontend.sh, which builds, prepares and, however this ends, cleans.

Every figure is a ratio to a rival in the same run: what is compared runs in pairs, close together and
in changing order, and the median of the pairs counts. "One CPU" means that daemons, clients and
rivals all share one; the rest runs where the kernel puts it, which is said.

Exit 0: every bar is kept. 1: one is not. 3: it could not be measured.
"""

import argparse
import contextlib
import json
import mmap
import os
import random
import signal
import statistics
import subprocess
import sys
import time

IMPORT = "import numpy, scipy.linalg, pandas"
BOUND_SECONDS = 300
GIB = 1 << 30
# FUSE requests; forgets carry no question and are counted in inodes.
REQUESTS = ("lookup", "getattr", "readlink", "open", "read", "release", "opendir", "readdir", "readdirplus",
            "releasedir", "statfs", "access", "getxattr", "listxattr", "lseek", "mutation", "other")  # fmt: skip
# Ranks of a cold run: the root, and as many children as there are pairs.
COLD_MEMORY = 512 << 20


class Failure(Exception):
    """It cannot go on, and why."""


def say(text):
    print(f"bench: {text}", flush=True)


@contextlib.contextmanager
def deadline(what, seconds=BOUND_SECONDS):
    def on_alarm(_signal, _frame):
        raise Failure(f"{what} took longer than {seconds} s")

    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def run(what, command, **options):
    with deadline(what):
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
                              **options)  # fmt: skip
    if done.returncode != 0:
        raise Failure(f"{what} failed with exit code {done.returncode}: {done.stdout.decode(errors='replace')[-300:]}")
    return done.stdout


def all_cpus():
    return set(range(os.cpu_count()))


def pin(cpus):
    """This process, and with it all that it starts from now on."""
    os.sched_setaffinity(0, cpus)


def touch_memory(amount):
    """Has the machine put memory behind pages that are about to be used: a virtual machine takes some
    milliseconds for each MiB that it has not had lately, which would be measured instead."""
    with mmap.mmap(-1, amount, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for offset in range(0, amount, 4096):
            memory[offset] = 1


class Copper:
    """Ranks on this machine, through the command line alone."""

    def __init__(self, options, view="view"):
        self.program, self.view = options.copper, os.path.join(options.work, view)
        self.logs = os.path.join(options.work, "logs")

    def launch(self, ranks, memory, *further):
        touch_memory(min(memory, 256 << 20) * ranks)
        run("the launch", [self.program, "launch", "--local", ranks, "-v", self.view, "-d", self.logs, "--source",
                           "none", "--net", "tcp", "-l", "warn", "--memory", memory, *further])  # fmt: skip
        self.settle()

    def settle(self):
        """Until the daemons have nothing to do but to tell their status: they prepare memory at first."""
        before = None
        for _ in range(100):
            threads = map(cpu_by_thread, self.pids())
            now = [sum(ns for kind, ns in of.items() if kind != "status") for of in threads]
            if before is not None and all(new - old < 1_000_000 for old, new in zip(before, now)):
                return
            before = now
            time.sleep(0.2)
        raise Failure("the daemons do not come to rest")

    def stop(self):
        run("stopping", [self.program, "stop", "-v", self.view])

    def status(self):
        text = run("copper status", [self.program, "status", "-v", self.view, "--json"])
        return sorted(json.loads(text)["ranks"], key=lambda rank: rank["rank"])

    def pids(self):
        return [rank["pid"] for rank in self.status()]

    def path(self, rank, path):
        return f"{self.view}/{rank}{path}"

    def move(self, cpus):
        for pid in self.pids():
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cpus)


def cpu_by_thread(pid):
    """Nanoseconds on a CPU of each kind of thread."""
    kinds = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{thread}"
        with contextlib.suppress(OSError), open(f"{folder}/comm") as comm, open(f"{folder}/schedstat") as schedstat:
            kind = comm.read().strip().rstrip("0123456789").rstrip("-")
            kinds[kind] = kinds.get(kind, 0) + int(schedstat.read().split()[0])
    return kinds


def requests_of(rank):
    return {name: rank["fuse"][name] for name in REQUESTS}


def total(counts):
    return sum(counts.values())


def increase(before, after):
    return {name: after[name] - before[name] for name in after if after[name] > before[name]}


class Figures:
    def __init__(self):
        self.rows = []

    def at_most(self, what, value, bar, note=""):
        self.add(what, value, f"<= {bar}", value <= bar, note)

    def at_least(self, what, value, bar, note=""):
        self.add(what, value, f">= {bar}", value >= bar, note)

    def shown(self, what, value, note=""):
        self.add(what, value, "shown", True, note)

    def add(self, what, value, bar, holds, note):
        self.rows.append({"figure": what, "value": round(value, 3), "bar": bar, "ok": holds, "note": note})
        say(f"{'ok    ' if holds else 'FAILED'} {what}: {value:.3g} ({bar}) {note}")

    def show(self):
        print("\nfigures")
        for row in self.rows:
            print(f"  {'ok' if row['ok'] else 'FAILED':<7}{row['figure']}: {row['value']} ({row['bar']}) {row['note']}")
        return all(row["ok"] for row in self.rows)


class Replay:
    def __init__(self, options):
        self.program, self.trace, self.work = options.replay, options.trace, options.work

    def rounds(self, at, rounds=1, processes=1, isatty=True):
        """Of each round: the slowest process in ms, and the CPU that all took."""
        output = os.path.join(self.work, "replay.json")
        command = [self.program, "run", self.trace, "--at", at, "--rounds", rounds, "--processes", processes,
                   "--json", output] + ([] if isatty else ["--no-isatty"])  # fmt: skip
        run("a replay", command)
        with open(output, encoding="utf-8") as file:
            result = json.load(file)
        return [
            (max(each["wall_ns"] for each in processes) / 1e6, sum(each["cpu_ns"] for each in processes) / 1e6)
            for processes in result["rounds"]
        ]


def pairs(count, mounted, direct):
    """Medians of the ratios and of both sides, in ms; each time the other first."""
    ratios, sides = [], ([], [])
    for number in range(count):
        order = (mounted, direct) if number % 2 == 0 else (direct, mounted)
        values = [side() for side in order]
        if number % 2:
            values.reverse()
        ratios.append(values[0] / values[1])
        for side, value in zip(sides, values):
            side.append(value)
    return statistics.median(ratios), *map(statistics.median, sides)


def timed(command, processes=1, **options):
    """Runs it so many times at once; the slowest, in ms."""

    def measure():
        start = time.monotonic()
        with deadline(str(command)):
            children = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)
                        for _ in range(processes)]  # fmt: skip
            codes = [child.wait() for child in children]
        if any(codes):
            raise Failure(f"{command} failed: {codes}")
        return (time.monotonic() - start) * 1e3

    return measure


def python_import(options, path, processes=1):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1",
                   "PYTHONNOUSERSITE": "1", "HOME": options.work}  # fmt: skip
    return timed([options.python, "-c", IMPORT], processes, env=environment, cwd="/")


def warm_replays(options, copper, figures):
    """Replays and imports of what the node and the kernel hold."""
    site, replay, cpu = options.site, Replay(options), max(all_cpus())
    pin({cpu})
    copper.launch(2, 512 << 20)
    view = copper.path(1, site)
    replay.rounds(view, rounds=2)
    # The third round of each: the first finds the folder after the other side has run.
    for isatty, bar, what in ((True, 1.6, "with isatty"), (False, 1.25, "isatty left out")):
        ratio, mounted, direct = pairs(options.pairs, lambda: replay.rounds(view, 3, isatty=isatty)[2][0],
                                       lambda: replay.rounds(site, 3, isatty=isatty)[2][0])  # fmt: skip
        figures.at_most(f"warm replay, 1 process, one CPU, {what}: mount / tmpfs", ratio, bar,
                        f"{mounted:.1f} / {direct:.1f} ms")  # fmt: skip
    for processes, bar in ((1, 1.05), (12, 1.10)):
        mounted_import, direct_import = (python_import(options, path, processes) for path in (view, site))
        mounted_import(), direct_import()
        ratio, mounted, direct = pairs(options.pairs, mounted_import, direct_import)
        figures.at_most(f"warm import, {processes} at once, one CPU: mount / direct", ratio, bar,
                        f"{mounted:.0f} / {direct:.0f} ms")  # fmt: skip
    pin(all_cpus())
    copper.move(all_cpus())
    for processes in (1, 12):
        before, pid = cpu_by_thread(copper.pids()[1]), copper.pids()[1]
        results = []

        def mounted_round():
            results.append(replay.rounds(view, 3, processes)[2])
            return results[-1][0]

        ratio, mounted, direct = pairs(options.pairs, mounted_round,
                                       lambda: replay.rounds(site, 3, processes)[2][0])  # fmt: skip
        daemon = increase(before, cpu_by_thread(pid))
        client = statistics.median(cpu for _, cpu in results)
        rounds = 3 * options.pairs
        note = " ".join(f"{kind} {ns / rounds / 1e6:.1f}" for kind, ns in sorted(daemon.items()) if ns > 1e5 * rounds)
        figures.shown(f"warm replay, {processes} at once, not pinned: mount / tmpfs", ratio,
                      f"{mounted:.1f} / {direct:.1f} ms; CPU ms of a round: clients {client:.1f}, daemon: {note}")  # fmt: skip
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(site) for name in names][:1000]
    relative = [os.path.relpath(path, site) for path in paths]

    def stat_all(root):
        names = [os.path.join(root, name) for name in relative]

        def measure():
            start = time.perf_counter()
            for _ in range(10):
                for name in names:
                    os.stat(name)
            return 1 / (time.perf_counter() - start)

        return measure

    stat_all(view)()
    pin({cpu})
    copper.move({cpu})
    ratio, *_ = pairs(options.pairs, stat_all(view), stat_all(site))
    figures.shown("stat of 1,000 absolute paths, warm, one CPU: per second, mount / direct", ratio,
                  "the view's are four components longer")  # fmt: skip

    def stat_within(root):
        def measure():
            os.chdir(root)
            rate = stat_all("")()
            os.chdir("/")
            return rate

        return measure

    ratio, *_ = pairs(options.pairs, stat_within(view), stat_within(site))
    figures.at_least("stat of the same 1,000 paths from within the folder: per second, mount / direct", ratio, 0.7)
    held_directories(options, copper, figures, view)
    copper.stop()
    pin(all_cpus())


def held_directories(options, copper, figures, view):
    """Asks for what snapshots can answer: names that are there, and names that are not."""
    folders = [folder for folder, _, names in os.walk(view) if names][:100]
    for folder in folders:
        os.listdir(folder)
    before = copper.status()[1]["fabric"]["messages_sent"]
    random.seed(1)
    asked = 0
    for folder in folders:
        for name in [f"absent-{random.random()}" for _ in range(20)]:
            with contextlib.suppress(FileNotFoundError):
                os.stat(os.path.join(folder, name))
                raise Failure(f"{folder}/{name} is there")
            asked += 1
        for name in os.listdir(folder):
            os.lstat(os.path.join(folder, name))
            asked += 1
    sent = copper.status()[1]["fabric"]["messages_sent"] - before
    figures.at_most(f"messages to the parent for {asked} names in {len(folders)} held directories", sent, 0)


def cold_replays(options, copper, figures):
    """Each child of a root that holds everything is cold once."""
    site, replay, cpu = options.site, Replay(options), max(all_cpus())
    pin({cpu})
    copper.launch(options.pairs + 1, COLD_MEMORY, "--fanout", min(options.pairs, 64))
    replay.rounds(copper.path(0, site))
    copper.settle()
    pids = copper.pids()
    ratios, sides, counts, spent = [], ([], []), [], {}
    for rank in range(1, options.pairs + 1):
        direct = replay.rounds(site, 2)[1]
        before = {name: cpu_by_thread(pids[of]) for name, of in (("rank", rank), ("parent", 0))}
        mounted = replay.rounds(copper.path(rank, site))[0]
        for name, of in (("rank", rank), ("parent", 0)):
            for kind, ns in increase(before[name], cpu_by_thread(pids[of])).items():
                spent.setdefault(f"{name}'s {kind}", []).append(ns / 1e6)
        spent.setdefault("client", []).append(mounted[1])
        ratios.append(mounted[0] / direct[0])
        sides[0].append(mounted[0])
        sides[1].append(direct[0])
        counts.append(requests_of(copper.status()[rank]))
    mounted, direct = map(statistics.median, sides)
    figures.at_most("cold replay on a rank whose parent is warm, one CPU: mount / tmpfs", statistics.median(ratios), 15,
                    f"{mounted:.0f} / {direct:.1f} ms")  # fmt: skip
    requests = statistics.median(map(total, counts))
    where = {name: statistics.median(values + [0] * (options.pairs - len(values))) for name, values in spent.items()}
    say(f"where a cold replay's {mounted:.0f} ms go, in ms (in us for each of {requests:.0f} requests without isatty):")
    for name, ms in sorted(where.items(), key=lambda item: -item[1]):
        if ms >= 0.5:
            say(f"    {name:<24}{ms:>8.1f}{1e3 * ms / requests:>8.1f}")
    say(f"    {'not on this list':<24}{mounted - sum(where.values()):>8.1f}")
    copper.stop()
    pin(all_cpus())


def count_requests(options, copper, figures):
    for processes, cold_bar, warm_bar in ((1, 1900, 20), (12, 2500, 100)):
        kinds = ([], [])
        for _ in range(3):
            copper.launch(2, COLD_MEMORY)
            view = copper.path(1, options.site)
            for side in kinds:
                before = requests_of(copper.status()[1])
                python_import(options, view, processes)()
                side.append(increase(before, requests_of(copper.status()[1])))
                # What the node may answer for two seconds only, it has to have learned for good.
                time.sleep(3)
            copper.stop()
        for name, side, bar in (("cold", kinds[0], cold_bar), ("warm", kinds[1], warm_bar)):
            note = " ".join(f"{kind} {count}" for kind, count in side[-1].items())
            figures.at_most(f"FUSE requests of {processes} imports at once, {name}, isatty left out",
                            statistics.median(map(total, side)), bar, note)  # fmt: skip


def sequential(options, copper, figures):
    """1 GiB that this node holds, its pages dropped: against libfuse's own example."""
    path = os.path.join(options.data, "large")
    with open(path, "wb") as file:
        for _ in range(64):
            file.write(random.randbytes(16 << 20))
    point = os.path.join(options.work, "passthrough")
    os.makedirs(point)
    rival = subprocess.Popen([options.passthrough, "-f", "-o", f"source={options.data},cache=always", point],
                             stdin=subprocess.DEVNULL)  # fmt: skip
    try:
        for _ in range(100):
            if os.path.ismount(point):
                break
            time.sleep(0.05)
        copper.launch(2, 2 * GIB)
        mounted = copper.path(1, path)
        run("reading it for the first time", ["cat", mounted], stderr=subprocess.STDOUT) and None
        ratio, ours, theirs = pairs(options.pairs, lambda: read_whole(mounted),
                                    lambda: read_whole(os.path.join(point, "large")))  # fmt: skip
        kernel = copper.status()[1]["kernel"]
        figures.at_least("sequential read of 1 GiB held here, not pinned: GB/s / passthrough_ll's", ratio, 0.9,
                         f"{ours:.2f} / {theirs:.2f} GB/s; reads of up to {kernel['read_request_bytes_max'] >> 10} KiB")  # fmt: skip
        copper.stop()
    finally:
        subprocess.run(["fusermount3", "-u", "-z", point], check=False)
        rival.wait(10)
        os.unlink(path)


def read_whole(path):
    """GB/s, with the file's pages dropped first."""
    with deadline(path):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        buffer, done, start = bytearray(1 << 20), 0, time.monotonic()
        while count := os.readv(file, [buffer]):
            done += count
        seconds = time.monotonic() - start
        os.close(file)
    if done != GIB:
        raise Failure(f"{path} has {done} bytes")
    return done / seconds / 1e9


def walks(options, copper, figures):
    for name, folders in (("many", 500), ("some", 50)):
        for folder in range(folders):
            os.makedirs(os.path.join(options.data, name, str(folder)))
            for number in range(100):
                with open(os.path.join(options.data, name, str(folder), f"file-{number}"), "wb") as file:
                    file.write(b"x" * number)
    cpu = max(all_cpus())
    pin({cpu})
    copper.launch(2, COLD_MEMORY)
    for what, command, name in (("find over 50,000 files", ["find"], "many"), ("ls -lR of 5,000 files", ["ls", "-lR"], "some")):
        path = os.path.join(options.data, name)
        mounted, direct = timed([*command, copper.path(1, path)]), timed([*command, path])
        mounted(), direct()
        ratio, ours, theirs = pairs(options.pairs, mounted, direct)
        figures.at_most(f"{what}, warm, one CPU: mount / direct", ratio, 3, f"{ours:.0f} / {theirs:.0f} ms")
    copper.stop()
    pin(all_cpus())


def listings(options, copper, figures):
    """What a directory's snapshot costs, with attributes (up to 4,096 entries) and without."""
    sizes = (256, 1024, 4096, 4097, 16384, 100_000)
    for size in sizes:
        folder = os.path.join(options.data, f"listing-{size}")
        os.makedirs(folder)
        for number in range(size):
            with open(os.path.join(folder, f"module_{number:06}.py"), "wb"):
                pass
    cpu = max(all_cpus())
    pin({cpu})
    copper.launch(2, COLD_MEMORY)

    def stat(size, number):
        path = copper.path(1, os.path.join(options.data, f"listing-{size}", f"module_{number:06}.py"))
        start = time.perf_counter()
        os.stat(path)
        return (time.perf_counter() - start) * 1e6

    for size in sizes:
        first, listing = stat(size, 1), stat(size, 2)
        more = statistics.median(stat(size, number) for number in range(10, 110))
        figures.shown(f"directory of {size:,} entries, one CPU: us for each entry of its listing", listing / size,
                      f"first name {first:.0f} us, second {listing:.0f} us, each of 100 more {more:.0f} us")  # fmt: skip
    copper.stop()
    pin(all_cpus())


def profiles(options, copper, figures):
    """What it costs to count paths and to be ready for a profile: two jobs, with all of it and without."""
    site, replay, cpu, memory = options.site, Replay(options), max(all_cpus()), 256 << 20
    profiled = Copper(options, "profiled")
    pin({cpu})
    fanout = ("--fanout", min(options.pairs, 64))
    copper.launch(options.pairs + 1, memory, *fanout)
    profiled.launch(options.pairs + 1, memory, *fanout, "-P", "-N", 50, "-A")
    jobs = (profiled, copper)
    for job in jobs:
        replay.rounds(job.path(0, site))
        job.settle()
    ranks = iter([rank for rank in range(1, options.pairs + 1) for _ in jobs])

    def cold(job):
        return lambda: replay.rounds(job.path(next(ranks), site))[0][0]

    ratio, *sides = pairs(options.pairs, *map(cold, jobs))
    figures.at_most("cold replay, one CPU: with -P -N 50 -A / without", ratio, 1.05,
                    "{:.0f} / {:.0f} ms".format(*sides))  # fmt: skip

    def warm(job):
        return lambda: replay.rounds(job.path(1, site), 3)[2][0]

    ratio, *sides = pairs(3 * options.pairs, *map(warm, jobs))
    figures.at_most("warm replay, one CPU: with -P -N 50 -A / without", ratio, 1.05,
                    "{:.1f} / {:.1f} ms".format(*sides))  # fmt: skip
    for job in jobs:
        job.stop()
    pin(all_cpus())


PARTS = {"warm": warm_replays, "cold": cold_replays, "requests": count_requests, "sequential": sequential, "walks": walks,
         "listings": listings, "profiles": profiles}  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    for name in ("copper", "replay", "trace", "passthrough", "python", "site", "data", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json")
    options = parser.parse_args()
    copper, figures = Copper(options), Figures()
    try:
        for name, part in PARTS.items():
            if options.only in (None, name):
                part(options, copper, figures)
    except (Failure, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    holds = figures.show()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"pairs": options.pairs, "figures": figures.rows}, file, indent=1)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
