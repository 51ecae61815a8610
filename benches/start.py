"""How long a job of N ranks on this machine takes to start and to stop, and what its ranks say to each
other meanwhile. Told by ci/bench-start.sh."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

# Start of 64 ranks to start of 8; seconds for a stop of the largest job.
START_BAR = 8.0
STOP_BAR = 5.0


def run(copper, *words):
    began = time.monotonic()
    done = subprocess.run([copper, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench-start: copper {words[0]} failed: {done.stderr.strip()}")
    return time.monotonic() - began, done.stdout


def once(copper, work, ranks):
    """Starts a job, holds a file of each view open, stops it; the figures."""
    views = os.path.join(work, "views")
    launch = ["launch", "--local", str(ranks), "--memory", "64MiB", "-v", views, "-d", os.path.join(work, "logs")]
    start, _ = run(copper, *launch)
    report = json.loads(run(copper, "status", "--json", "-v", views)[1])
    tcp = [rank["links"]["tcp"] for rank in report["ranks"]]
    if len(tcp) != ranks:
        sys.exit(f"bench-start: {len(tcp)} of {ranks} ranks have answered")
    progress = next(rank["progress"] for rank in report["ranks"] if rank["rank"] == 0)
    if progress["ready"] != ranks:
        sys.exit(f"bench-start: rank 0 counts {progress['ready']} of {ranks} ranks ready")
    # Held by a process of its own in each view, as users' programs would.
    holders = []
    for rank in range(ranks):
        with open(os.path.join(views, str(rank), "etc/hostname"), "rb") as file:
            holders.append(subprocess.Popen(["sleep", "600"], stdin=file, cwd=os.path.join(views, str(rank), "etc")))
    stop, _ = run(copper, "stop", "-v", views)
    for holder in holders:
        holder.kill()
        holder.wait()
    said = [one["control_sent"] for one in tcp]
    return {"ranks": ranks, "start_s": start, "stop_s": stop, "depth": progress["depth"],
            "handshakes_max": max(one["handshakes"] for one in tcp),
            "said_mean": statistics.mean(said), "said_max": max(said)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--copper", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--ranks", required=True)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.ranks.split(",")]
    figures = {size: [] for size in sizes}
    for index in range(arguments.rounds):
        # The other way round each time: what came before is not always the same.
        for size in sizes if index % 2 == 0 else reversed(sizes):
            figures[size].append(once(arguments.copper, arguments.work, size))
    print(f"{'ranks':>6} {'start s':>9} {'a rank ms':>10} {'stop s':>8} {'levels':>7} {'handshakes':>11} {'said, mean':>11} {'most':>6}")
    median = {}
    for size in sizes:
        of = lambda name: statistics.median(one[name] for one in figures[size])
        median[size] = (of("start_s"), of("stop_s"))
        print(f"{size:>6} {of('start_s'):>9.2f} {1000 * of('start_s') / size:>10.1f} {of('stop_s'):>8.2f} "
              f"{of('depth'):>7.0f} {of('handshakes_max'):>11.0f} {of('said_mean'):>11.1f} {of('said_max'):>6.0f}")
    failed = False
    if 8 in median and 64 in median:
        ratio = median[64][0] / median[8][0]
        kept = ratio <= START_BAR
        failed |= not kept
        print(f"start of 64 to start of 8: {ratio:.2f}  <= {START_BAR}  {'ok' if kept else 'short'}")
    largest = max(sizes)
    kept = median[largest][1] <= STOP_BAR
    failed |= not kept
    print(f"stop of {largest} whose files are open: {median[largest][1]:.2f} s  <= {STOP_BAR}  {'ok' if kept else 'short'}")
    sys.exit(1 if failed else 0)


main()
