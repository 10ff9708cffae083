"""Looking at a suspicious picture in a process of its own, with a limit on memory and time.

The helper is started on first use, kept while it behaves, and replaced when it dies. How it died is seen here, exactly: a
crash of the decoder is told apart from somebody's ``kill -9``, which never counts against a picture.
"""

import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from shared.errors import Environment
from shared.states import SOLO_DEATHS_ALLOWED
from worker.vision.errors import VisionError
from worker.vision.look import Prepared

_CRASHES: Final = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
_HEADER: Final = struct.Struct("<Q")


class HelperKilled(Environment):
    """The helper was ended from outside: nothing is known about the picture."""

    default_code = "helper_killed"


class Isolate:
    """One helper process. Not for several threads at once."""

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        """Keep the limits; nothing runs yet."""
        self._memory, self._timeout = memory_bytes, timeout_s
        self._helper: subprocess.Popen[bytes] | None = None

    def prepare(self, data: bytes, *, image_id: str, declared: str | None, max_pixels: int) -> Prepared:
        """Do what ``look.prepare`` does, elsewhere.

        :raises VisionError: the picture's own fault; ``decoder_crash`` after three helpers crashed or hung over it.
        :raises HelperKilled: the helper was killed from outside.
        """
        request = pickle.dumps((data, image_id, declared, max_pixels), pickle.HIGHEST_PROTOCOL)
        for _ in range(SOLO_DEATHS_ALLOWED):
            answer = self._ask(request)
            if isinstance(answer, Prepared):
                return answer
            if isinstance(answer, str):
                raise VisionError(answer)
        raise VisionError("decoder_crash")

    def close(self) -> None:
        """End the helper."""
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait(10)
            for pipe in (self._helper.stdin, self._helper.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            self._helper = None

    def _ask(self, request: bytes) -> Prepared | str | None:
        """Give the result, the code of the picture's fault, or None when the helper crashed or hung over it."""
        if self._helper is None or self._helper.poll() is not None:
            self.close()
            self._helper = subprocess.Popen(_command(self._memory), stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 -- our own module
        helper = self._helper
        kills = _oom_kills()
        until = time.monotonic() + self._timeout
        try:
            _send(helper.stdin, request)
            answer = pickle.loads(_receive(helper.stdout, until))  # noqa: S301 -- our own helper's
        except TimeoutError:
            self.close()
            return None
        except (EOFError, OSError) as error:
            code = helper.wait(10)
            self.close()
            if -code in _CRASHES:
                return None
            if -code == signal.SIGKILL and _oom_kills() == kills:
                raise HelperKilled("The helper was ended from outside.") from error
            return "out_of_memory"  # Python could not go on within the limit, or a container's limit came first
        if not isinstance(answer, Prepared | str):
            raise TypeError(type(answer))
        return answer


def _command(memory_bytes: int) -> list[str]:
    return [sys.executable, "-m", "worker.isolate", str(memory_bytes)]


def _oom_kills() -> int:
    """How many processes this kernel has ended for want of memory (proc(5)): the one SIGKILL that is the picture's fault."""
    with suppress(OSError, ValueError), Path("/proc/vmstat").open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


def _send(pipe: IO[bytes] | None, data: bytes) -> None:
    assert pipe is not None  # noqa: S101 -- made with PIPE
    pipe.write(_HEADER.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes] | None, until: float) -> bytes:
    assert pipe is not None  # noqa: S101 -- made with PIPE
    if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        raise TimeoutError
    (length,) = _HEADER.unpack(_exactly(pipe, _HEADER.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _serve() -> None:
    """Be the helper: answer requests until the pipe closes."""
    from worker.vision import imaging, look  # noqa: PLC0415 -- after the limit would be too late to import much

    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            (length,) = _HEADER.unpack(_exactly(source, _HEADER.size))
            data, image_id, declared, max_pixels = pickle.loads(_exactly(source, length))  # noqa: S301 -- our parent's
        except EOFError:
            return
        answer: Any
        try:
            answer = look.prepare(imaging.decode(data, max_pixels=max_pixels), image_id=image_id, declared=declared)
        except VisionError as error:
            answer = error.code
        except MemoryError:
            answer = "out_of_memory"
        del data
        try:
            reply = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        except MemoryError:
            reply = pickle.dumps("out_of_memory")
        del answer
        _send(sink, reply)


if __name__ == "__main__":
    _serve()
