"""``python -m worker.sandbox.child MEMORY_BYTES CPU_S``: the sandbox's child process. It is killed when its parent ends.

Any exception other than an image's known faults terminates the child and counts as a crash.
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
from worker.sandbox.messages import EXIT_OUT_OF_MEMORY, Reply, receive, send
from worker.sandbox.requests import Request
from worker.vision import imaging
from worker.vision.errors import VisionError

_PR_SET_PDEATHSIG: Final = 1


def _limit_memory(memory_bytes: int) -> None:
    """Limit the data memory beyond what is loaded (setrlimit(2)). Not the address space: libraries reserve much of it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    limit = used + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _limit_cpu_time(cpu_s: float) -> None:
    """Let the kernel kill this process by SIGPROF after this much more CPU time; 0 removes the limit.

    This is a timer (setitimer(2)) instead of RLIMIT_CPU: that limit counts from the start of the process, by a clock of ticks which drifts from
    the exact times of getrusage(2), so the remaining time cannot be computed.
    """
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _execute(number: int, request: Request[Any]) -> Reply:
    try:
        return Reply(number, request.execute())
    except VisionError as error:
        return Reply(number, fault=error.code)


def main() -> None:
    """Execute requests until the pipe is closed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Linux: otherwise a child that hangs would outlive its parent
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # undo what was inherited: the CPU time limit depends on it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allocator.configure(allocator.WORKER)
    imaging.limit_threads(1)  # the model uses the cores
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _limit_memory(int(sys.argv[1]))
    try:
        while True:
            number, request = pickle.loads(receive(source))  # noqa: S301 -- from our parent
            _limit_cpu_time(float(sys.argv[2]))
            send(sink, pickle.dumps(_execute(number, request), pickle.HIGHEST_PROTOCOL))
            _limit_cpu_time(0)  # reading the next request does not count
    except EOFError:
        return
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)
    except Exception as error:
        if _is_memory_error(error):
            os._exit(EXIT_OUT_OF_MEMORY)
        raise


def _is_memory_error(error: Exception) -> bool:
    """Whether this is one of the memory errors of OpenCV, torch or zxing-cpp, which are no MemoryError."""
    text = str(error).lower()
    return any(phrase in text for phrase in ("insufficient memory", "can't allocate memory", "bad_alloc", "bad allocation"))


if __name__ == "__main__":
    main()
