"""``python -m worker.sandbox.child BYTES SECONDS``: the process in which ``worker.sandbox.parent`` has pictures looked at. It ends with its parent.

An exception that is none of a picture's known faults ends it, like a crash: it is one, only with a traceback.
"""

import ctypes
import os
import pickle
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

from worker.runtime import allocator
from worker.sandbox.parent import NO_MEMORY, Reply, Request, receive, send
from worker.vision import imaging
from worker.vision.errors import VisionError

_PR_SET_PDEATHSIG: Final = 1


def _limit(memory_bytes: int) -> None:
    """Bound the data of this process beside what is loaded (setrlimit(2)): not its address space, of which libraries reserve much."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    limit = used + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _allow(cpu_s: float) -> None:
    """Let this process compute so much longer, 0 without an end; the kernel ends it then by SIGPROF.

    A timer (setitimer(2)) and no RLIMIT_CPU: a limit counts from the process's beginning, by a clock of ticks that the exact times of
    getrusage(2) drift from, so what is left of it cannot be told.
    """
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _reply(number: int, request: Request[Any]) -> Reply:
    try:
        return Reply(number, request.do())
    except VisionError as error:
        return Reply(number, fault=error.code)


def main() -> None:
    """Serve until the pipe closes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Linux: else one that hangs would outlive its parent
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # whatever was inherited: the limit on computing stands on it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allocator.settle()
    imaging.limit_threads(1)  # beside a model that has its cores already
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _limit(int(sys.argv[1]))
    try:
        while True:
            number, request = pickle.loads(receive(source))  # noqa: S301 -- our parent's
            _allow(float(sys.argv[2]))
            send(sink, pickle.dumps(_reply(number, request), pickle.HIGHEST_PROTOCOL))
            _allow(0)  # nothing counts until the next one has been read
    except EOFError:
        return
    except MemoryError:
        os._exit(NO_MEMORY)
    except Exception as error:
        if _is_want_of_memory(error):
            os._exit(NO_MEMORY)
        raise


def _is_want_of_memory(error: Exception) -> bool:
    """OpenCV, torch and zxing have errors of their own for it."""
    return any(sign in str(error).lower() for sign in ("insufficient memory", "can't allocate memory", "bad_alloc", "bad allocation"))


if __name__ == "__main__":
    main()
