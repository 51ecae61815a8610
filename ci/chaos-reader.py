"""The readers of ci/chaos.sh on one host: read at random through its mount until SIGTERM, compare each
byte with what the source has had, and write a line of JSON for everything that is not as it should be.

An opened file shows one generation of its path, whatever happens, or an errno. `TRUTH/<name>/<number>`
are the generations that there have been; each is there before the source shows it.
"""

import argparse
import json
import os
import random
import signal
import threading
import time

CHUNK_BYTES_MAX = 1 << 20
RANGES = 6
WATCH_SECONDS = 0.5
# After an errno: a host without its daemon is not to be asked without pause.
REST_SECONDS = 0.1


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--view", required=True, help="the mount")
    parser.add_argument("--source", required=True, help="what is read, as it is named outside of the mount")
    parser.add_argument("--truth", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--deadline", type=float, required=True, help="seconds for one read, from open to close")
    return parser.parse_args()


class Log:
    def __init__(self, path):
        self.lock = threading.Lock()
        self.file = open(path, "a", encoding="utf-8")

    def write(self, **event):
        with self.lock:
            self.file.write(json.dumps(event) + "\n")
            self.file.flush()


class Worker(threading.Thread):
    """One reader. `begun` is when its read of `name` began, or None: the main thread looks at both."""

    def __init__(self, options, log, number):
        super().__init__(daemon=True)
        self.options, self.log = options, log
        self.random = random.Random(options.seed * 1000 + number)
        self.begun, self.name, self.reported = None, None, False
        self.reads, self.bytes, self.errors, self.longest = 0, 0, 0, 0.0
        self.names = sorted(os.listdir(options.truth))

    def run(self):
        while True:
            self.name, self.reported = self.random.choice(self.names), False
            self.begun = time.monotonic()
            try:
                problem = self.read(self.name)
            except OSError as error:
                self.errors += 1
                self.log.write(event="errno", begun=self.begun, ended=time.monotonic(), name=self.name, errno=error.errno)
                problem = None
                self.end()
                time.sleep(REST_SECONDS)
            else:
                self.reads += 1
            if problem:
                self.log.write(event="wrong", begun=self.begun, name=self.name, what=problem)
            self.end()

    def end(self):
        begun, self.begun = self.begun, None
        if begun is not None:
            self.longest = max(self.longest, time.monotonic() - begun)

    def read(self, name):
        """What is wrong with a file's bytes, if something is."""
        descriptor = os.open(self.options.view + os.path.join(self.options.source, name), os.O_RDONLY)
        try:
            # Most reads are to come from the daemon, not from what the kernel still has.
            if self.random.random() < 0.8:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            parts = self.whole(descriptor) if self.random.random() < 0.5 else self.ranges(descriptor)
        finally:
            os.close(descriptor)
        self.bytes += sum(len(data) for _, data in parts)
        return self.compare(name, parts)

    def whole(self, descriptor):
        return self.until(descriptor, 0, None, self.random.choice((4096, 1 << 16, CHUNK_BYTES_MAX)))

    def ranges(self, descriptor):
        size = os.fstat(descriptor).st_size
        parts = []
        for _ in range(RANGES):
            offset, length = self.random.randrange(size + 1), self.random.randrange(1, CHUNK_BYTES_MAX)
            parts += self.until(descriptor, offset, offset + length, CHUNK_BYTES_MAX)
        return parts

    def until(self, descriptor, offset, end, chunk):
        """What there is from `offset` on, as (offset, data); no data where the file ends. A read may
        give less than was asked for: the next one says why."""
        parts = []
        while end is None or offset < end:
            data = os.pread(descriptor, chunk if end is None else min(chunk, end - offset), offset)
            parts.append((offset, data))
            offset += len(data)
            if not data:
                break
        return parts

    def compare(self, name, parts):
        folder = os.path.join(self.options.truth, name)
        firsts = {}
        # The newest first.
        for generation in sorted(os.listdir(folder), key=int, reverse=True):
            with open(os.path.join(folder, generation), "rb") as file:
                wrong = next((part for part in parts if not is_of(file.fileno(), *part)), None)
            if wrong is None:
                return None
            firsts[generation] = f"{len(wrong[1])} bytes at {wrong[0]}"
        return firsts


def is_of(descriptor, offset, data):
    # Where the file was said to end there is to be no byte.
    return os.pread(descriptor, max(len(data), 1), offset) == data


def main():
    options = parse()
    log = Log(options.log)
    ended = []
    # No lock: the handler runs in the middle of what the main thread does.
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    workers = [Worker(options, log, number) for number in range(options.threads)]
    for worker in workers:
        worker.start()
    while not ended:
        time.sleep(WATCH_SECONDS)
        now = time.monotonic()
        for worker in workers:
            begun = worker.begun
            if begun is not None and now - begun > options.deadline and not worker.reported:
                worker.reported = True
                log.write(event="overdue", begun=begun, ended=now, name=worker.name)
        totals = {what: sum(getattr(worker, what) for worker in workers) for what in ("reads", "bytes", "errors")}
        log.write(event="totals", at=now, longest=max(worker.longest for worker in workers), **totals)
    # One that hangs in the kernel would keep the process: its lines are written.
    os._exit(0)


if __name__ == "__main__":
    main()
