"""Measure the memory of a process (Linux)."""

from collections.abc import Callable
from pathlib import Path


def measure_peak(pid: int, work: Callable[[], None]) -> int:
    """Run ``work``, and return by how many bytes the peak of a process's memory exceeds its memory at the beginning."""
    before = memory_now(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets VmHWM
    work()
    return _status(pid, "VmHWM") - before


def memory_now(pid: int) -> int:
    """Return the memory of a process in bytes (its resident set)."""
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no line {name}")
