"""``python -m worker.sandbox.child MEMORY_BYTES CPU_S``: run the child process of the sandbox.

The child first reports that it has started. The kernel kills the child when its parent ends. ``VisionError`` is sent to the parent in a reply. A memory error ends
the child with a special exit code. Any other exception ends the child and counts as a crash.
"""

import ctypes
import os
import pickle
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

from shared import allocator
from worker.sandbox.messages import EXIT_OUT_OF_MEMORY, READY, Reply, receive, send
from worker.sandbox.requests import Request
from worker.vision import imaging
from worker.vision.errors import VisionError

_PR_SET_PDEATHSIG: Final = 1


def _limit_memory(memory_bytes: int) -> None:
    """Limit the data memory to the amount in use now plus ``memory_bytes`` (RLIMIT_DATA in setrlimit(2)).

    The address space is not limited, because libraries reserve much more of it than they use.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    limit = used + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _limit_cpu_time(cpu_s: float) -> None:
    """Let the kernel kill this process with SIGPROF after ``cpu_s`` more seconds of CPU time; 0 removes the limit.

    The limit is a timer (setitimer(2)) and not RLIMIT_CPU, because RLIMIT_CPU counts from the start of the process. The
    CPU time used so far would have to be added to ``cpu_s``, but it is not known exactly enough: RLIMIT_CPU counts
    clock ticks, and their sum drifts away from the exact time that getrusage(2) returns.
    """
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _execute(number: int, request: Request[Any]) -> Reply:
    try:
        return Reply(number, request.execute())
    except VisionError as error:
        return Reply(number, fault=error.code)


def main() -> None:
    """Execute requests until the parent closes the pipe."""
    # Let the kernel kill this process when its parent ends (only on Linux), so that a child that hangs does not
    # outlive its parent.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # undo inherited settings, because the CPU time limit needs SIGPROF
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allocator.configure(allocator.WORKER)
    imaging.limit_threads(1)  # leave the other cores to the model
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _limit_memory(int(sys.argv[1]))
    send(sink, READY)
    try:
        while True:
            number, request = pickle.loads(receive(source))  # noqa: S301 -- the data comes from our own parent process
            _limit_cpu_time(float(sys.argv[2]))
            send(sink, pickle.dumps(_execute(number, request), pickle.HIGHEST_PROTOCOL))
            _limit_cpu_time(0)  # waiting for the next request and reading it must not count
    except EOFError:
        return
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    except Exception as error:
        if _is_memory_error(error):
            os._exit(EXIT_OUT_OF_MEMORY)
        raise


def _is_memory_error(error: Exception) -> bool:
    """Return whether this error means that memory ran out.

    OpenCV, torch, and zxing-cpp do not raise MemoryError in this case, but errors of other types.
    """
    text = str(error).lower()
    return any(phrase in text for phrase in ("insufficient memory", "can't allocate memory", "bad_alloc", "bad allocation"))


if __name__ == "__main__":
    main()
