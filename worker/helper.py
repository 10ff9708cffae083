"""``python -m worker.helper BYTES``: the process in which ``worker.isolate`` has pictures looked at. It ends with its parent.

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

from worker.isolate import NO_MEMORY, Look, receive, send
from worker.vision import imaging, look
from worker.vision.errors import VisionError

_PR_SET_PDEATHSIG: Final = 1


class Helper:
    """Answers requests; loads the model when one asks for it."""

    def __init__(self, memory_bytes: int) -> None:
        """Limit what pictures may take beside what is loaded already."""
        self._memory = memory_bytes
        self._detector: Any = None
        self._limit()

    def answer(self, request: Look) -> look.Prepared | str:
        """Do what is asked; a string is the code of the picture's fault."""
        try:
            picture = imaging.decode(request.data, max_pixels=request.max_pixels)
            prepared = look.prepare(picture, image_id=request.image_id, declared=request.declared)
            if request.names is None:
                return prepared
            found = self._loaded().predict([prepared.rgb])[0] if request.detect else []
            return look.finish(prepared, found, request.names)
        except VisionError as error:
            return error.code

    def _loaded(self) -> Any:
        if self._detector is None:
            from worker.vision import detect  # noqa: PLC0415 -- torch, and only for pictures that are tried alone

            self._detector = detect.load()
            self._limit()
        return self._detector

    def _limit(self) -> None:
        """Bound the data of this process (setrlimit(2)): not its address space, of which libraries reserve gigabytes."""
        lines = Path("/proc/self/status").read_text().splitlines()
        used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + self._memory, resource.RLIM_INFINITY))


def main() -> None:
    """Serve until the pipe closes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Linux: else one that hangs would outlive its parent
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    helper = Helper(int(sys.argv[1]))
    try:
        while True:
            request: Look = pickle.loads(receive(source))  # noqa: S301 -- our parent's
            send(sink, pickle.dumps(helper.answer(request), pickle.HIGHEST_PROTOCOL))
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
