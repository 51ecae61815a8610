"""The measuring part of ci/compare-simulation.sh, which builds and, however this ends, cleans.

In each round the model's numbers are measured (`copper simulate --calibrate`) before each configuration,
which is then launched afresh, so that every rank is cold, and the trace is replayed at all ranks at once. What the slowest rank took is compared with what `copper simulate` says of the same ranks, trees and
calls, sharing this machine's processors. The median of the rounds' ratios counts: a round's numbers and
times were measured under the same load.

Nothing is fitted. Beside what is calibrated two numbers are known here: what a process computes is the
processor time of a replay at the source itself, and all begin at the same moment.

Exit 0: every ratio is within the bar. 1: one is not. 3: it could not be measured.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

MEMORY = "256MiB"
# What `copper status` says that a rank with that memory has for blocks.
ARENA = "192MiB"
BAR = (0.7, 1.4)
# Until all replays have read their trace.
LEAD_NS = 1_000_000_000


class Failure(Exception):
    """Something could not be measured."""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Case:
    """A configuration: a trace, and the shape of the job."""

    def __init__(self, name, trace, folder, fanout, trees):
        self.name, self.trace, self.folder = name, trace, folder
        self.shape = ["--fanout", str(fanout), "--trees", str(trees)]
        self.rounds = []
        # Predicted and found: messages of all links, and bytes that went over them.
        self.counts = {"messages": [0, 0], "bytes": [0, 0]}


class Compare:
    def __init__(self, options):
        self.options = options
        self.views = os.path.join(options.work, "views")

    def constants(self, case, calibrated):
        """The calibrated numbers, and what a process of the case does without Copper."""
        path = os.path.join(self.options.work, "own.json")
        run(self.options.replay, "run", case.trace, "--at", case.folder, "--rounds", "3", "--json", path)
        rounds = json.load(open(path, encoding="utf-8"))["rounds"]
        own = statistics.median(one[0]["cpu_ns"] for one in rounds)
        constants = dict(calibrated, computing_ns=int(own), start_spread_ns=1)
        path = os.path.join(self.options.work, "constants.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(constants, file)
        return path

    def calibrate(self):
        path = os.path.join(self.options.work, "calibrated.json")
        arguments = ["--ranks", str(self.options.ranks), "--source", self.options.site, "--write", path]
        said = run(self.options.copper, "simulate", "--calibrate", *arguments)
        return json.load(open(path, encoding="utf-8")), said.splitlines()

    def predict(self, case, constants):
        ranks, processors = str(self.options.ranks), str(os.cpu_count())
        said = run(
            self.options.copper, "simulate", "--nodes", ranks, "--processes", "1",
            "--processors", processors, "--memory", ARENA, "--trace", case.trace,
            "--at", case.folder, "--constants", constants, "--json", *case.shape,
        )
        found = json.loads(said)["runs"][0]
        case.counts["messages"][0] = found["messages"]
        # Each rank but the root gets each byte once.
        case.counts["bytes"][0] = found["source_bytes"] * (self.options.ranks - 1)
        return found["seconds"]

    def measure(self, case):
        """From the common start to the end of the slowest rank, in seconds."""
        ranks = self.options.ranks
        run(
            self.options.copper, "launch", "--local", str(ranks), "--memory", MEMORY,
            "-v", self.views, "-d", os.path.join(self.options.work, "logs"), *case.shape,
        )
        try:
            seconds = self.replay(case, ranks)
            status = json.loads(run(self.options.copper, "status", "-v", self.views, "--json"))
            fabric = [rank["fabric"] for rank in status["ranks"]]
            case.counts["messages"][1] = sum(one["messages_sent"] for one in fabric)
            case.counts["bytes"][1] = sum(one["pulled_bytes"] for one in fabric)
        finally:
            run(self.options.copper, "stop", "-v", self.views)
        return seconds

    def replay(self, case, ranks):
        begin = time.monotonic_ns() + LEAD_NS
        replays = []
        for rank in range(ranks):
            at = os.path.join(self.views, str(rank)) + case.folder
            path = os.path.join(self.options.work, f"rank-{rank}.json")
            command = [self.options.replay, "run", case.trace, "--at", at, "--begin", str(begin), "--json", path]
            pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
            replays.append((path, subprocess.Popen(command, **pipes)))
        failed = [said for _, replay in replays for said in [replay.communicate()[1]] if replay.returncode]
        if failed:
            raise Failure(f"a replay ended otherwise than recorded: {failed[0].strip()}")
        rounds = [json.load(open(path, encoding="utf-8"))["rounds"][0][0] for path, _ in replays]
        return max(one["wall_ns"] for one in rounds) / 1e9


def main():
    parser = argparse.ArgumentParser()
    for name in ("copper", "replay", "work", "site", "imports", "data", "reads"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--json")
    options = parser.parse_args()
    cases = [
        Case("import, fan-out 2", options.imports, options.site, 2, 1),
        Case("import, fan-out 7", options.imports, options.site, 7, 1),
        Case("import, fan-out 2, 2 trees", options.imports, options.site, 2, 2),
        Case("one large file, fan-out 2", options.reads, options.data, 2, 1),
        Case("one large file, fan-out 7", options.reads, options.data, 7, 1),
    ]
    compare = Compare(options)
    lines = []
    for number in range(1, options.rounds + 1):
        # Between the cases, since what else a machine does changes within seconds; the median of each
        # number is the round's.
        calibrations, measurements = [], []
        for case in cases:
            calibrated, lines = compare.calibrate()
            calibrations.append(calibrated)
            measurements.append(compare.measure(case))
        calibrated = {name: statistics.median_low(one[name] for one in calibrations) for name in calibrations[0]}
        for case, measured in zip(cases, measurements):
            predicted = compare.predict(case, compare.constants(case, calibrated))
            case.rounds.append((predicted, measured))
            load = os.getloadavg()[0]
            print(f"round {number}: {case.name}: predicted {predicted:.3f} s, measured {measured:.3f} s, "
                  f"load {load:.1f}", flush=True)
    print("\n".join(lines))
    return report(cases, options)


def report(cases, options):
    kept, figures = True, []
    print(f"{'':<30}{'predicted':>12}{'measured':>12}{'ratio':>8}  bar")
    for case in cases:
        predicted = statistics.median(pair[0] for pair in case.rounds)
        measured = statistics.median(pair[1] for pair in case.rounds)
        ratio = statistics.median(pair[0] / pair[1] for pair in case.rounds)
        within = BAR[0] <= ratio <= BAR[1]
        kept = kept and within
        print(f"{case.name:<30}{predicted:>10.3f} s{measured:>10.3f} s{ratio:>8.2f}  "
              f"{BAR[0]} to {BAR[1]} {'ok' if within else 'MISSED'}")
        counts = {name: pair[0] / max(pair[1], 1) for name, pair in case.counts.items()}
        print(f"{'':<30}" + ", ".join(f"{name} {value:.3f} of what they are" for name, value in counts.items()))
        figures.append({"name": case.name, "predicted_seconds": predicted, "measured_seconds": measured,
                        "ratio": ratio, "counts": counts, "rounds": case.rounds})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"ranks": options.ranks, "processors": os.cpu_count(), "figures": figures}, file, indent=1)
    return 0 if kept else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, OSError) as failure:
        print(f"simulation.py: {failure}", file=sys.stderr)
        sys.exit(3)
