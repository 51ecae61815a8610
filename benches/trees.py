"""The measuring part of ci/bench-trees.sh, which builds and, however this ends, cleans.

The source is an ext4 on a loop device. Each daemon is in a control group of its own, which limits what it
reads of that device in a second; the device is mounted anew for each run, so that nothing of it is in the
kernel's memory. All ranks read the one file at once, through a launch with one tree and one with two, in
pairs and in changing order: the median of the pairs' ratios counts. Every view's bytes are compared with
the source afterwards.

Exit 0: the bar is kept. 1: it is not. 3: it could not be measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from chain import MIB, Failure, run, say

RANKS = 4
TREES = (1, 2)
BAR = 0.6
# What one tree may take beside the limit's own time: if it takes longer, something else limits, and the
# ratio says nothing of the source.
SOURCE_BAR = 1.25


class Source:
    """The file system that is shown."""

    def __init__(self, options):
        self.device, self.folder = options.device, os.path.join(options.work, "source")
        self.file = os.path.join(self.folder, "file")

    def fill(self, size):
        run("mount", self.device, self.folder)
        with open(self.file, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        run("umount", self.folder)

    def __enter__(self):
        run("mount", "-o", "ro", self.device, self.folder)
        return self

    def __exit__(self, *_):
        run("umount", self.folder)


class Limits:
    """A control group for each rank, version 1 or 2."""

    def __init__(self, options):
        self.options = options
        number = os.stat(options.device).st_rdev
        self.number = f"{os.major(number)}:{os.minor(number)}"

    def put(self, rank, pid):
        group = os.path.join(self.options.groups, f"{self.options.prefix}-{rank}")
        os.makedirs(group, exist_ok=True)
        rate = self.options.rate * MIB
        two = os.path.join(group, "io.max")
        if os.path.exists(two):
            self.write(two, f"{self.number} rbps={rate}")
        else:
            self.write(os.path.join(group, "blkio.throttle.read_bps_device"), f"{self.number} {rate}")
        self.write(os.path.join(group, "cgroup.procs"), str(pid))

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)


def status(options, views):
    done = run(options.copper, "status", "--json", "-v", views)
    return json.loads(done)["ranks"]


def measure(options, source, limits, trees):
    """Seconds until all ranks have read the file, and what each has read of the source."""
    views, logs = os.path.join(options.work, "views"), os.path.join(options.work, "logs")
    with source:
        run(options.copper, "launch", "--local", RANKS, "-T", trees, "--net", "tcp", "--source", "none",
            "--memory", "512MiB", "-v", views, "-d", logs)  # fmt: skip
        try:
            for rank in status(options, views):
                limits.put(rank["rank"], rank["pid"])
            shown = [os.path.join(views, str(rank)) + source.file for rank in range(RANKS)]
            start = time.perf_counter()
            readers = [subprocess.Popen(["cat", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for path in shown]
            codes = [reader.wait(timeout=300) for reader in readers]
            seconds = time.perf_counter() - start
            if any(codes):
                raise Failure(f"cat ended with {codes}")
            read = {rank["rank"]: rank["source"]["bytes"] for rank in status(options, views)}
            for path in shown:
                run("cmp", source.file, path)
        finally:
            run(options.copper, "stop", "-v", views)
    return seconds, read


def compare(options):
    size = options.mib * MIB
    source, limits = Source(options), Limits(options)
    source.fill(size)
    seconds, ratios = {trees: [] for trees in TREES}, []
    for pair in range(options.pairs):
        took = {}
        for trees in TREES if pair % 2 else reversed(TREES):
            took[trees], read = measure(options, source, limits, trees)
            seconds[trees].append(took[trees])
            roots = {rank: round(count / size, 3) for rank, count in read.items() if count}
            say(f"-T {trees}: {took[trees]:.2f} s; of the file's bytes each root read {roots}")
            if sum(read.values()) != size or len(roots) != trees:
                raise Failure(f"{trees} roots were to read {size} bytes once, and the ranks read {read}")
        ratios.append(took[2] / took[1])
    medians = {trees: statistics.median(seconds[trees]) for trees in TREES}
    ratio, alone = statistics.median(ratios), medians[1] / (options.mib / options.rate)
    kept = ratio <= BAR and alone <= SOURCE_BAR
    say(f"{'ok  ' if kept else 'MISS'} -T 2 / -T 1 = {ratio:.3f} (bar {BAR}), {min(ratios):.3f} to {max(ratios):.3f}; "
        f"{medians[2]:.2f} s / {medians[1]:.2f} s, which is {alone:.2f} times what the limit alone takes "
        f"(bar {SOURCE_BAR})")  # fmt: skip
    return {"ratio": ratio, "ratios": ratios, "seconds": medians, "source_ratio": alone, "kept": kept}


def main():
    parser = argparse.ArgumentParser()
    for name in ("copper", "work", "device", "groups", "prefix"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("pairs", "mib", "rate"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--json")
    options = parser.parse_args()
    try:
        figure = compare(options)
    except (Failure, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"mib": options.mib, "rate_mib": options.rate, "pairs": options.pairs, **figure}, file, indent=1)
    return 0 if figure["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
