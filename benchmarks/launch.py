"""Run a command, and write its time and memory into a file: a small process between a benchmark and what it measures.

    python -I -S benchmarks/launch.py REPORT INTERVAL COMMAND...

The kernel counts the memory of the process that started a command as the command's own until the command's program is loaded. A
benchmark may hold a lot of memory, this process does not. INTERVAL is in seconds; 0 takes no memory samples. For Linux.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path


def main(report: str, interval: str, *command: str) -> int:
    """Return the command's exit code; the report's memory is in bytes, each sample's time in seconds since the start."""
    samples: list[tuple[float, int]] = []
    page = os.sysconf("SC_PAGE_SIZE")
    start = time.perf_counter()
    process = subprocess.Popen(command)
    while True:
        try:
            code = process.wait(float(interval) or None)
            break
        except subprocess.TimeoutExpired:
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page
            samples += [(time.perf_counter() - start, resident)] if resident else []  # 0: it has just ended
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    Path(report).write_text(json.dumps({"seconds": seconds, "peak": peak, "samples": samples}))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
