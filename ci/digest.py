"""Writes down everything below a folder, for ci/demo.py: python3 digest.py FOLDER OUTPUT."""

import hashlib
import json
import os
import stat
import sys


def digest(folder):
    """Everything below a folder: what it is, and for a file its SHA-256. Names as the kernel has them."""
    found = {}

    def failed(error):
        found[os.path.relpath(error.filename, folder)] = ["error", str(error)]

    for path, folders, files in os.walk(folder, onerror=failed):
        for name in folders + files:
            full = os.path.join(path, name)
            found[os.path.relpath(full, folder)] = describe(full)
    return found


def describe(path):
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return ["link", os.readlink(path)]
        common = [status.st_mode, status.st_mtime_ns]
        if not stat.S_ISREG(status.st_mode):
            return ["folder", *common]
        sha256 = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                sha256.update(piece)
        return ["file", *common, status.st_size, sha256.hexdigest()]
    except OSError as error:
        return ["error", str(error)]


if __name__ == "__main__":
    with open(sys.argv[2], "w", encoding="utf-8") as output:
        json.dump(digest(sys.argv[1]), output)
