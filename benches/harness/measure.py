"""Runs a command once, and tells what it cost.

CPU time is the kernel's count for the process and all children it waited for; that of the process alone is told apart, so that
pg_dump is not charged to pacharc. Peak memory is that of the largest process among them; that of the first process alone is read
from VmHWM while it runs. Servers are no children of the command, and so are never counted.
"""

import os
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import asdict, dataclass

TICKS = os.sysconf("SC_CLK_TCK")
# How often VmHWM is read, seconds. What a process takes in its last moment is not seen by it, but is by the kernel's count.
INTERVAL = 0.01


@dataclass
class Sample:
    """One run. Seconds and bytes."""

    wall: float
    user: float
    system: float
    # Of the first process alone.
    own_cpu: float
    # Of the largest process.
    peak: int
    # Of the first process alone.
    own_peak: int


class Failed(Exception):
    """A contestant that did not end well: its figures would mean nothing."""


def run(command, environment, expected=(0,)):
    """Runs `command` (a list, or a text for bash) to its end."""
    argv = command if isinstance(command, list) else ["bash", "-euo", "pipefail", "-c", command]
    log = os.path.join(environment["SCRATCH"], "last.log")
    with open(log, "wb") as output:
        begun = time.monotonic()
        child = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                 cwd=environment["SCRATCH"], start_new_session=True)
        watch = Watch(child.pid)
        try:
            # The zombie still tells its own time apart from its children's.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            raise
        wall = time.monotonic() - begun
        watch.stop()
        own_cpu = cpu_of(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in expected:
        with open(log, "rb") as output:
            said = output.read()[-2000:].decode(errors="replace")
        raise Failed(f"{' '.join(argv)}\nexit code {child.returncode}: {said}")
    peak = usage.ru_maxrss * 1024
    return Sample(wall, usage.ru_utime, usage.ru_stime, own_cpu, peak, watch.peak or peak)


class Watch:
    """Reads VmHWM of a process until it ends."""

    def __init__(self, pid):
        self.path, self.peak, self.ended = f"/proc/{pid}/status", 0, threading.Event()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while not self.ended.wait(INTERVAL):
            try:
                with open(self.path, encoding="ascii", errors="replace") as status:
                    for line in status:
                        if line.startswith("VmHWM:"):
                            self.peak = int(line.split()[1]) * 1024
            except (OSError, ValueError):
                return

    def stop(self):
        self.ended.set()
        self.thread.join()


def cpu_of(pid):
    """User and system seconds of a process that has ended and is not yet reaped, without its children's."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        # The name, in parentheses, may hold anything.
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def summary(samples):
    """Medians and minima of samples, as plain values."""
    walls = [sample.wall for sample in samples]
    return {
        "median": statistics.median(walls),
        "min": min(walls),
        "cpu": statistics.median(sample.user + sample.system for sample in samples),
        "user": statistics.median(sample.user for sample in samples),
        "own_cpu": statistics.median(sample.own_cpu for sample in samples),
        "peak": max(sample.peak for sample in samples),
        "own_peak": max(sample.own_peak for sample in samples),
        "samples": [asdict(sample) for sample in samples],
    }
