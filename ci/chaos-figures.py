"""What the loss of a rank costs one reader: ci/chaos.sh --figures.

The host that is furthest from the root reads 256 MiB; in the middle of it the daemon of its parent, or
of the root, is killed. Each such read stands beside one that nothing disturbs, of a file of the same
size that nobody has read either, and the difference counts. The bytes are compared.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import chaos

FILE_BYTES = 256 << 20
PAIRS = 5
# Between two reads: until the killed rank is back in its place.
REJOIN_SECONDS = 12

# Says that a quarter has been read, then how long it all took.
READ = """
import hashlib, os, sys, time
begun, digest, done = time.monotonic(), hashlib.sha256(), 0
with open(sys.argv[1], "rb", buffering=0) as file:
    while data := file.read(1 << 20):
        digest.update(data)
        done += len(data)
        if done == 64 << 20:
            print("quarter", flush=True)
print(time.monotonic() - begun, digest.hexdigest(), flush=True)
"""


class Figures(chaos.Chaos):
    def make(self, name):
        # In a folder that nobody has looked into: a name that came later into another would be absent.
        path = f"{self.options.work}/source/{self.made}/{name}"
        self.made += 1
        data = self.chance.randbytes(1 << 20)
        # Distinct blocks, cheaply made.
        with open(path, "wb") as file:
            for block in range(FILE_BYTES >> 20):
                file.write(block.to_bytes(8, "little") + data[8:])
        digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
        return path, digest

    def read(self, name, victim):
        """Seconds of a read during which the daemon of `victim` dies, if there is one."""
        path, digest = self.make(name)
        reader = self.cluster.start(self.hosts[-1], [sys.executable, "-c", READ, chaos.VIEW + path],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        if reader.stdout.readline() == "quarter\n" and victim:
            os.kill(self.cluster.daemon(victim), signal.SIGKILL)
        out, err = reader.communicate(timeout=120)
        os.remove(path)
        if reader.returncode != 0 or out.split()[1] != digest:
            raise RuntimeError(f"a read with {victim} killed: {err or out}")
        return float(out.split()[0])

    def parent(self):
        status = self.copper(self.hosts[-1], ["status", "--json", "-v", chaos.VIEW], check=False).stdout
        rank = next(rank for rank in json.loads(status)["ranks"] if rank.get("host") == self.hosts[-1])
        return rank["parent"]

    def run(self):
        self.made = 0
        for number in range(4 * PAIRS):
            os.makedirs(f"{self.options.work}/source/{number}")
        self.launch()
        for what, victim_of, bar in (("parent", self.parent, 2), ("root", lambda: 0, 3)):
            added = []
            for pair in range(PAIRS):
                victim = self.hosts[victim_of() or 0]
                order = (None, victim) if pair % 2 == 0 else (victim, None)
                seconds = {}
                for killed in order:
                    seconds[killed] = self.read(f"{what}-{pair}-{killed}", killed)
                    if killed:
                        self.revive(killed)
                        time.sleep(REJOIN_SECONDS)
                added.append(seconds[victim] - seconds[None])
                chaos.say(f"{victim} killed: {seconds[victim]:.2f} s, undisturbed {seconds[None]:.2f} s")
            middle = statistics.median(added)
            chaos.say(f"kill of the {what}: {middle:+.2f} s (median of {PAIRS}, worst {max(added):+.2f}), bar {bar} s: {'kept' if middle <= bar else 'NOT kept'}")
            if middle > bar:
                self.problems.append(f"the death of the {what} adds more than {bar} s")
        self.stop()
        for problem in self.problems:
            chaos.say(f"PROBLEM: {problem}")
        return 1 if self.problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, kind in chaos.ARGUMENTS.items():
        parser.add_argument(f"--{name}", required=True, type=kind)
    sys.exit(Figures(parser.parse_args()).run())


if __name__ == "__main__":
    main()
