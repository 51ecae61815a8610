#!/usr/bin/env python3
"""Has a Copper view clear or log what it counts: an ioctl on any file of it.

    copper_ctl.py PATH CODE|NAME        python3 -c 'import copper_ctl; copper_ctl.control(path, "reset")'

PATH is a view or any file in it, for example /tmp/$USER/copper. `copper ctl` does the same for all views
of a machine. Tables go to DIR/JOB/tables, profiles to DIR/JOB/profiling (the -d of the launch).
"""

import fcntl
import os
import sys

CODES = {
    "clear-cache": 100,
    "log-cache": 200,
    "log-counts": 300,
    "log-times": 400,
    "log-hits": 500,
    "log-misses": 600,
    "clear-counts": 700,
    "clear-hits": 800,
    "clear-misses": 900,
    "clear-times": 1000,
    "log-data-events": 1100,
    "log-directory-events": 1200,
    "log-metadata-events": 1300,
    "clear-data-events": 1400,
    "clear-directory-events": 1500,
    "clear-metadata-events": 1600,
    "log-negatives": 1700,
    "clear-negatives": 1800,
    "reset": 1900,
    "log-everything": 2000,
    "clear-ioctl-events": 2100,
    "log-ioctl-events": 2200,
    "log-data-size": 2300,
    "log-directory-size": 2400,
    "log-metadata-size": 2500,
}


def control(path, word):
    """Returns when it is done; raises OSError (ENOTTY: PATH is in no view), or KeyError."""
    code = CODES[word] if isinstance(word, str) else word
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, code)
    finally:
        os.close(descriptor)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    path, word = sys.argv[1:]
    try:
        control(path, int(word) if word.isdigit() else word)
    except KeyError:
        sys.exit(f"copper_ctl.py: {word} is no code; there are: {' '.join(CODES)}")
    except OSError as error:
        sys.exit(f"copper_ctl.py: {path}: {error.strerror}: is it in a view?")


if __name__ == "__main__":
    main()
