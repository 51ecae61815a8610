"""The measuring part of ci/demo.sh, which builds, prepares and, however this ends, stops and cleans.

Exit 0: every claim holds. 1: one does not. 3: it could not be measured.

Whatever is compared runs in pairs, close together and in changing order, so that what else the
machine does hits both; the ratios' median counts.
"""

import argparse
import contextlib
import json
import os
import signal
import stat
import statistics
import subprocess
import sys
import time

LAUNCHES = 3  # fresh daemons each time: a cold import can be had once per launch
DIRECT_ROUNDS = 5  # direct imports per launch, around the cold one
PAIRS = 10
# A user's second run is no continuation of the first: what a rank may answer for two seconds only,
# it has to have learned for good by then.
SECOND_IMPORT_AFTER_SECONDS = 3
LAUNCH_SECONDS_MAX = 150
IMPORT_SECONDS_MAX = 120
VERIFY_SECONDS_MAX = 900

# The import must come from where it is meant to come from: the folder is the first argument.
IMPORT = """
import sys, numpy, scipy.linalg, pandas
sys.exit(not all(module.__file__.startswith(sys.argv[1]) for module in (numpy, scipy, pandas)))
"""

# FUSE requests in `copper status --json`; forgets are counted in inodes. Left out: ioctl (Python
# asks of each file that it opens whether it is a terminal) and sums over other counters.
REQUESTS = ("lookup", "forget", "getattr", "readlink", "open", "read", "release", "opendir", "readdir",
            "readdirplus", "releasedir", "statfs", "access", "mutation", "other")  # fmt: skip


class Failure(Exception):
    """It cannot go on, and why."""


def say(text):
    print(f"demo: {text}", flush=True)


@contextlib.contextmanager
def deadline(seconds, what):
    """Nothing waits for ever, least of all for a mount."""

    def on_alarm(_signal, _frame):
        raise Failure(f"{what} took longer than {seconds} s")

    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


class Children:
    """Child processes that are killed if something goes wrong."""

    def __init__(self):
        self.running = {}

    def start(self, name, command, **options):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
        self.running[child.pid] = (name, child)
        return child

    def wait_any(self):
        """The name of the next one that ends."""
        pid, status = os.wait()
        name, child = self.running.pop(pid)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise Failure(f"{name} failed with exit code {child.returncode}")
        return name

    def kill(self):
        for _, child in self.running.values():
            child.kill()
        self.running.clear()


CHILDREN = Children()


class Copper:
    """The ranks, through the scripts and `copper status` alone."""

    def __init__(self, options, memory_bytes):
        self.scripts = options.launcher
        self.work = options.work
        self.ranks = options.ranks
        self.view = os.path.join(options.work, "view")
        self.memory_bytes = memory_bytes

    def run(self, what, command):
        with deadline(LAUNCH_SECONDS_MAX, what):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"{what} failed with exit code {done.returncode}")
        return done.stdout

    def launch(self):
        script = os.path.join(self.scripts, "launch_copper.sh")
        options = ["--local", self.ranks, "-v", self.view, "-d", os.path.join(self.work, "logs"),
                   "--source", "none", "-l", "info", "--memory", self.memory_bytes]  # fmt: skip
        self.run("the launch", [script, *map(str, options)])
        return [rank["mount"] for rank in self.status()]

    def stop(self):
        self.run("stopping", [os.path.join(self.scripts, "stop_copper.sh"), "-v", self.view])

    def status(self):
        program = os.path.join(self.work, "root/bin/copper")
        ranks = json.loads(self.run("copper status", [program, "status", "-v", self.view, "--json"]))["ranks"]
        states = [rank["state"] for rank in ranks]
        if states != ["ready"] * self.ranks:
            raise Failure(f"not every rank is ready: {states}")
        return sorted(ranks, key=lambda rank: rank["rank"])

    def requests(self):
        return [{name: rank["fuse"][name] for name in REQUESTS} for rank in self.status()]


class Imports:
    """Imports by the system's Python, from one or several folders at once."""

    def __init__(self, work):
        self.work = work
        keep = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")
        self.environment = {name: os.environ[name] for name in keep if name in os.environ}
        self.environment.update(PYTHONDONTWRITEBYTECODE="1", PYTHONNOUSERSITE="1")

    def run(self, folders):
        """Starts all at once; returns the seconds that each took, from its start to its end."""
        started, seconds = {}, {}
        with deadline(IMPORT_SECONDS_MAX, "an import"):
            for number, folder in enumerate(folders):
                name = f"import {number} from {folder}"
                started[name] = time.monotonic()
                CHILDREN.start(
                    name,
                    [sys.executable, "-c", IMPORT, folder],
                    cwd=self.work,
                    env={**self.environment, "PYTHONPATH": folder},
                )
            for _ in folders:
                name = CHILDREN.wait_any()
                seconds[name] = time.monotonic() - started[name]
        return [seconds[name] for name in started]

    def pairs(self, mounted, direct):
        """`PAIRS` rounds of both, each time the other first."""
        results = []
        for number in range(PAIRS):
            order = (mounted, direct) if number % 2 == 0 else (direct, mounted)
            rounds = [self.run(folders) for folders in order]
            results.append(rounds if number % 2 == 0 else rounds[::-1])
        return results


def verify(work, environment, views):
    """Compares what every mount shows with the source. Returns files compared and what differs."""
    digest = os.path.join(os.path.dirname(__file__), "digest.py")
    outputs = [os.path.join(work, f"digest-{number}.json") for number in range(len(views) + 1)]
    with deadline(VERIFY_SECONDS_MAX, "verifying"):
        for folder, output in zip([environment, *views], outputs):
            CHILDREN.start(f"reading {folder}", [sys.executable, digest, folder, output])
        for _ in outputs:
            CHILDREN.wait_any()
    source, *seen = map(load, outputs)
    files = sum(entry[0] == "file" for entry in source.values())
    different = []
    for view, entries in zip(views, seen):
        for name in sorted(source.keys() | entries.keys()):
            if source.get(name) != entries.get(name) or source[name][0] == "error":
                different.append(f"{view}/{name}: {entries.get(name)}, the source: {source.get(name)}")
    return files * len(views), different


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def distinct_bytes(environment):
    """Bytes of all files, a hard-linked one once. A file's blocks are as long together as the file."""
    sizes = {}
    for path, _, files in os.walk(environment):
        for name in files:
            status = os.lstat(os.path.join(path, name))
            if stat.S_ISREG(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def memory_for(environment_bytes, ranks):
    """Each rank's memory: everything has to fit, else it would be read twice. Three quarters of it are the
    arena, in which these files take a third more than their bytes (small ones whole extents)."""
    cache = environment_bytes * 2 + (64 << 20)
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    if available < environment_bytes * ranks:
        raise Failure(f"{ranks} ranks hold {ranks * environment_bytes >> 20} MiB, there are {available >> 20}: "
                      "take fewer (--ranks)")  # fmt: skip
    return cache


def increase(before, after):
    """By how much each rank's counters grew; what did not grow is left out."""
    pairs = zip(before, after)
    return [{name: new[name] - old[name] for name in new if new[name] > old[name]} for old, new in pairs]


def each_rank(rounds):
    """The median over rounds, rank by rank."""
    return [statistics.median(seconds) for seconds in zip(*rounds)]


def numbers(values, digits=2):
    return " ".join(f"{value:.{digits}f}" for value in values)


class Claims:
    def __init__(self):
        self.list = []

    def add(self, what, figure, bar, holds):
        self.list.append({"claim": what, "figure": figure, "bar": bar, "ok": bool(holds)})

    def at_most(self, what, figure, bar):
        self.add(what, round(figure, 3), f"<= {bar}", figure <= bar)

    def show(self):
        print("\nclaims")
        for claim in self.list:
            word = "ok" if claim["ok"] else "FAILED"
            print(f"  {word:<7}{claim['claim']}: {claim['figure']} ({claim['bar']})")
        return all(claim["ok"] for claim in self.list)


def cold_imports(copper, imports, environment):
    """Launches several times. The last launch stays; returns its mounts and requests, and all rounds."""
    direct = [environment] * copper.ranks
    say("one import straight from the folder, not measured: the source is in the page cache from here on")
    imports.run(direct)
    cold, straight, ratios = [], [], []
    for number in range(1, LAUNCHES + 1):
        mounts = copper.launch()
        views = [mount + environment for mount in mounts]
        rounds = [imports.run(direct) for _ in range(DIRECT_ROUNDS // 2)]
        before = copper.requests()
        cold.append(imports.run(views))
        requests = increase(before, copper.requests())
        rounds += [imports.run(direct) for _ in range(DIRECT_ROUNDS - len(rounds))]
        slowest = statistics.median(map(max, rounds))
        ratios.append(max(cold[-1]) / slowest)
        straight += rounds
        say(f"launch {number} of {LAUNCHES}: slowest import cold {max(cold[-1]):.2f} s, direct {slowest:.2f} s "
            f"(median of {numbers(map(max, rounds))}), ratio {ratios[-1]:.2f}")  # fmt: skip
        if number < LAUNCHES:
            copper.stop()
    return views, requests, cold, straight, ratios


def show_imports(rows, imported, direct_rounds):
    print(f"\nimports (medians of {LAUNCHES} cold, {PAIRS} warm, {direct_rounds} direct, all ranks at once)")
    print("  rank  cold s  warm s  direct s  requests cold  warm  blocks pulled  MiB pulled  source opens  MiB read")
    for row, rank in zip(rows, imported):
        print(
            f"  {row['rank']:>4}{row['import_cold_s']:>8.2f}{row['import_warm_s']:>8.2f}{row['import_direct_s']:>10.2f}"
            f"{row['fuse_requests_cold']:>15}{row['fuse_requests_warm']:>6}{rank['fabric']['pulls']:>15}"
            f"{rank['fabric']['pulled_bytes'] / 2**20:>12.1f}{rank['source']['opens']:>14}"
            f"{rank['source']['bytes'] / 2**20:>10.1f}"
        )


def show_verification(final, files):
    print(f"\nand after the verification of {files} files on each rank")
    print("  rank  blocks pulled  MiB pulled  source opens   reads  MiB read    stats  listings")
    for rank in final:
        source, fabric = rank["source"], rank["fabric"]
        print(
            f"  {rank['rank']:>4}{fabric['pulls']:>15}{fabric['pulled_bytes'] / 2**20:>12.1f}{source['opens']:>14}"
            f"{source['reads']:>8}{source['bytes'] / 2**20:>10.1f}{source['stats']:>9}{source['listings']:>10}"
        )


def check(final, verified, different, distinct):
    """The claims about bytes; those about time are the caller's."""
    claims = Claims()
    claims.add(f"files that differ, of {verified}, by list and SHA-256", len(different), "= 0",
               not different and verified > 0)  # fmt: skip
    touched = sum(rank["source"][name] for rank in final[1:] for name in ("opens", "reads", "bytes", "stats", "listings"))
    claims.add(f"source opens, reads, stats and listings on ranks 1 to {len(final) - 1}", touched, "= 0", touched == 0)
    read = final[0]["source"]["bytes"] / distinct
    claims.add("bytes that rank 0 read / distinct bytes", round(read, 4), "1 to 1.02", 1 <= read <= 1.02)
    return claims


def measure(options):
    environment = options.environment
    distinct = distinct_bytes(environment)
    copper = Copper(options, memory_for(distinct, options.ranks))
    imports = Imports(options.work)
    say(f"{options.ranks} ranks; each import is of numpy, scipy.linalg and pandas; {environment}: {distinct >> 20} MiB")
    views, cold_kinds, cold, direct, cold_ratios = cold_imports(copper, imports, environment)

    time.sleep(SECOND_IMPORT_AFTER_SECONDS)
    before = copper.requests()
    second = imports.run(views)
    warm = increase(before, copper.requests())
    requests_cold, requests_warm = ([sum(rank.values()) for rank in each] for each in (cold_kinds, warm))
    say(f"second import on all ranks at once: {numbers(second)} s")
    for rank, kinds in enumerate(warm):
        say(f"  its FUSE requests on rank {rank}: {' '.join(f'{name} {kinds[name]}' for name in kinds) or 'none'}")
    imported = copper.status()

    pairs = imports.pairs(views, [environment] * options.ranks)
    warm_ratios = [max(mounted) / max(straight) for mounted, straight in pairs]
    direct += [straight for _, straight in pairs]
    say(f"{PAIRS} pairs, all ranks at once: slowest warm / slowest direct {numbers(warm_ratios)}")
    alone = imports.pairs(views[-1:], [environment])
    alone_ratios = [mounted[0] / straight[0] for mounted, straight in alone]
    say(f"{PAIRS} pairs, rank {options.ranks - 1} alone: warm / direct {numbers(alone_ratios)}")

    say(f"verifying the SHA-256 of every file through {options.ranks} mounts")
    verified, different = verify(options.work, environment, views)
    for line in different[:10]:
        say(f"different: {line}")
    final = copper.status()

    cold_s, direct_s = each_rank(cold), each_rank(direct)
    warm_s = each_rank([mounted for mounted, _ in pairs])
    rows = [
        {
            "rank": rank["rank"],
            "import_cold_s": round(cold_s[index], 4),
            "import_warm_s": round(warm_s[index], 4),
            "import_direct_s": round(direct_s[index], 4),
            "fuse_requests_cold": requests_cold[index],
            "fuse_requests_warm": requests_warm[index],
            "pulls": rank["fabric"]["pulls"],
            "pulled_bytes": rank["fabric"]["pulled_bytes"],
            "source_opens": rank["source"]["opens"],
            "source_bytes": rank["source"]["bytes"],
        }
        for index, rank in enumerate(final)
    ]

    show_imports(rows, imported, len(direct))
    show_verification(final, verified // options.ranks)
    claims = check(final, verified, different, distinct)
    claims.at_most("slowest cold import / slowest direct import", statistics.median(cold_ratios), 2.5)
    claims.at_most("slowest warm import / slowest direct import", statistics.median(warm_ratios), 1.15)
    claims.at_most("FUSE requests of a second import", max(requests_warm), 50)
    claims.at_most(f"second import on rank {options.ranks - 1} alone / direct", statistics.median(alone_ratios), 1.15)
    holds = claims.show()
    if options.json:
        write_json(options.json, {
            "ranks": rows, "distinct_block_bytes": distinct, "files_verified": verified,
            "files_different": len(different), "claims": claims.list,
        })  # fmt: skip
    return 0 if holds else 1


def write_json(path, value):
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    os.replace(part, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("launcher", "work", "environment"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--json")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return measure(parser.parse_args())
    except (Failure, OSError, KeyError, ValueError) as error:
        what = "" if isinstance(error, (Failure, OSError)) else f"{type(error).__name__}: "
        print(f"demo: {what}{error}", file=sys.stderr)
        return 3
    finally:
        CHILDREN.kill()


if __name__ == "__main__":
    sys.exit(main())
