"""What `copper top` costs, itself and the ranks that it asks, and how many lines such a job logs. Told by
ci/bench-top.sh."""

import argparse
import fcntl
import glob
import os
import pty
import re
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time

# Percent of a core for the view; percent of a core for each rank, unless it is within what ranks differ
# by from window to window anyway; lines a rank.
TOP_BAR = 5.0
RANK_BAR = 0.1
LINES_BAR = 20


def run(copper, *words):
    done = subprocess.run([copper, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench-top: copper {words[0]} failed: {done.stderr.strip()}")
    return done.stdout


def daemons(run_folder):
    """The daemons of this run, which the environment names."""
    mark = f"COPPER_RUN_DIR={run_folder}".encode()
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{folder}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"{folder}/environ", "rb") as file:
                if b"serve" in words and mark in file.read().split(b"\0"):
                    found.append(int(folder.rsplit("/", 1)[1]))
        except OSError:
            pass
    return found


def used(pid):
    """Seconds of processor time, by the scheduler's clock."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                total += int(file.read().split()[0])
        except OSError:
            pass
    return total / 1e9


class Terminal:
    """A terminal of 80 columns and 24 rows that somebody looks at."""

    def __init__(self, *words):
        self.screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.first = b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        try:
            while chunk := os.read(self.screen, 65536):
                self.first = (self.first + chunk)[:65536]
        except OSError:
            pass

    def words(self):
        """What was written first, with one blank for whatever moves the cursor or changes colours."""
        return b" ".join(re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b" ", self.first).split())

    def quit(self):
        os.write(self.screen, b"q")
        code = self.process.wait(10)
        self.reader.join(10)
        os.close(self.screen)
        if code != 0:
            sys.exit(f"bench-top: copper top ended with {code}")


def window(pids, seconds):
    before, began = {pid: used(pid) for pid in pids}, time.monotonic()
    time.sleep(seconds)
    after, took = {pid: used(pid) for pid in pids}, time.monotonic() - began
    return {pid: 100 * (after[pid] - before[pid]) / took for pid in pids}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--copper", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    copper, views, logs = given.copper, f"{given.work}/views", f"{given.work}/logs"
    try:
        off, on, top = measure(given, copper, views, logs)
    finally:
        run(copper, "stop", "-v", views)
    tell_all(given, logs, off, on, top)


def measure(given, copper, views, logs):
    run(copper, "launch", "--local", str(given.ranks), "--memory", "64MiB", "-l", "3", "-v", views, "-d", logs)
    for rank in range(given.ranks):
        os.listdir(f"{views}/{rank}/etc")
        with open(f"{views}/{rank}/etc/passwd", "rb") as file:
            file.read()
    pids = daemons(f"{given.work}/run")
    if len(pids) != given.ranks:
        sys.exit(f"bench-top: {len(pids)} daemons of {given.ranks} ranks")
    off, on, top = [], [], []
    for index in range(given.rounds):
        for watched in (False, True) if index % 2 == 0 else (True, False):
            if not watched:
                off.append(statistics.mean(window(pids, given.seconds).values()))
                continue
            terminal = Terminal(copper, "top", "-v", views)
            # What it takes to begin is not what it takes to go on.
            time.sleep(5)
            figures = window([*pids, terminal.process.pid], given.seconds)
            top.append(figures.pop(terminal.process.pid))
            on.append(statistics.mean(figures.values()))
            terminal.quit()
            if f" {given.ranks} ready ".encode() not in terminal.words():
                sys.exit("bench-top: copper top does not show all ranks")
    return off, on, top


def tell_all(given, logs, off, on, top):
    lines = 0
    for log in glob.glob(f"{logs}/*/logs/*.log"):
        with open(log, "rb") as file:
            lines += sum(1 for _ in file)
    added = statistics.median(b - a for a, b in zip(off, on))
    spread = max(off) - min(off)
    failed = False

    def tell(what, value, unit, bar, kept):
        nonlocal failed
        failed |= not kept
        print(f"{what:<44} {value:>9.3f} {unit:<14} {bar:<34} {'ok' if kept else 'short'}")

    tell(f"copper top on {given.ranks} ranks", statistics.median(top), "% of a core", f"<= {TOP_BAR:g}",
         statistics.median(top) <= TOP_BAR)
    print(f"{'a rank while nobody looks':<44} {statistics.median(off):>9.3f} % of a core    differs by {spread:.3f}")
    tell("what a rank takes more while it is watched", added, "% of a core", f"<= {RANK_BAR:g}, or what it differs by",
         added <= max(RANK_BAR, spread))
    tell("log lines at -l 3", lines, "lines", f"<= {LINES_BAR} a rank, {LINES_BAR * given.ranks}",
         0 < lines <= LINES_BAR * given.ranks)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
