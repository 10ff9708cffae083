"""Looking at a picture in a process of its own, with a limit on memory and time.

A suspicious picture is decoded here, one that is to be tried alone is drawn and augmented here too, and so is all that comes by
URL: what it does to a process, it does to the helper. (The model sees a picture reduced to one size: none can do it harm.) The helper is started on first use, kept while it behaves, and replaced when it dies. How it
died is seen exactly: a crash is told apart from somebody's ``kill``, which never counts against a picture.
"""

import pickle
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeVar

from shared.errors import Environment
from shared.states import SOLO_DEATHS_ALLOWED
from worker.vision import describe, image_steps, imaging
from worker.vision.describe import ImageDescription
from worker.vision.errors import VisionError
from worker.vision.image_steps import PreparedImage

_FROM_OUTSIDE: Final = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_HEADER: Final = struct.Struct("<Q")
NO_MEMORY: Final = 71
"""Exit code of a helper that could not go on within its limit."""
_BUSY: Final = 0.8
"""Of the time that a look may take: one that computes for so long hangs over its picture. Another helper would, too; one that only waited may have been held up."""


class HelperKilled(Environment):
    """The helper was ended from outside: nothing is known about the picture."""

    default_code = "helper_killed"


Answer_co = TypeVar("Answer_co", covariant=True)


class Request(Protocol[Answer_co]):
    """What the helper may be asked: a plain value that knows how it is done there."""

    def do(self) -> Answer_co:
        """Do it.

        :raises VisionError: the picture's own fault.
        """


@dataclass(frozen=True, slots=True)
class Look:
    """Decode a picture and prepare it."""

    data: bytes
    image_id: str
    declared: str | None
    max_pixels: int

    def do(self) -> PreparedImage:
        """Decode and measure."""
        picture = imaging.decode(self.data, max_pixels=self.max_pixels)
        return image_steps.prepare(picture, image_id=self.image_id, declared=self.declared)


@dataclass(frozen=True, slots=True)
class Finish:
    """Draw what was found in a prepared picture, and make its augmentations."""

    prepared: PreparedImage
    detections: list[dict[str, Any]]
    names: list[str]

    def do(self) -> PreparedImage:
        """Draw and augment."""
        return image_steps.finish(self.prepared, self.detections, self.names, "cpu")


@dataclass(frozen=True, slots=True)
class Augment:
    """Show a picture and its augmentations."""

    data: bytes
    names: tuple[str, ...]
    seed: int
    max_pixels: int

    def do(self) -> ImageDescription:
        """Decode, scale and augment."""
        return describe.augment_image(self.data, names=self.names, seed=self.seed, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class Describe:
    """Tell what is known of a picture, and make it ready for the model."""

    data: bytes
    max_pixels: int

    def do(self) -> ImageDescription:
        """Decode and measure."""
        return describe.describe_image(self.data, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the helper says to the request of this number: its answer, or the code of the picture's fault."""

    number: int
    answer: Any = None
    fault: str | None = None


class Isolate:
    """One helper process. Not for several threads: the helper is ended when the thread ends that started it (prctl(2), PR_SET_PDEATHSIG)."""

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        """Keep the limits; nothing runs yet."""
        self._memory, self._timeout = memory_bytes, timeout_s
        self._asked = 0
        self._helper: subprocess.Popen[bytes] | None = None

    def do(self, request: Request[Answer_co]) -> Answer_co:
        """Do it elsewhere.

        :raises VisionError: the picture's own fault; ``decoder_crash`` after one computed over it without an end, or three crashed or stood still.
        :raises HelperKilled: the helper was killed from outside.
        """
        self._asked += 1
        message = pickle.dumps((self._asked, request), pickle.HIGHEST_PROTOCOL)
        for _ in range(SOLO_DEATHS_ALLOWED):
            try:
                reply = self._ask(message)
            except BaseException:  # whatever ends the wait: an answer left in the pipe would be taken for the next picture's
                self.close()
                raise
            if reply is None:
                continue
            if reply.number != self._asked:
                self.close()
                raise RuntimeError("the helper answered another request")
            if reply.fault is not None:
                raise VisionError(reply.fault)
            answer: Answer_co = reply.answer
            return answer
        raise VisionError("decoder_crash")

    def close(self) -> None:
        """End the helper; also from another thread than that which waits for its answer."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.kill()
            helper.wait()
            for pipe in (helper.stdin, helper.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _ask(self, request: bytes) -> "Reply | None":
        """Give the helper's reply, or None when it crashed or hung over the picture."""
        if self._helper is None or self._helper.poll() is not None:
            self.close()
            self._helper = subprocess.Popen(_command(self._memory, self._timeout * _BUSY), stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 -- our own module
        helper = self._helper
        kills = _oom_kills()
        late = threading.Event()

        def end() -> None:
            late.set()
            helper.kill()

        watch = threading.Timer(self._timeout, end)  # whatever the helper hangs in, and however slowly it reads or answers
        watch.start()
        try:
            send(helper.stdin, request)
            reply: Any = pickle.loads(receive(helper.stdout))  # noqa: S301 -- our own helper's
        except (EOFError, OSError) as error:
            code = helper.wait()
            self.close()
            if code == -signal.SIGPROF:
                return Reply(self._asked, fault="decoder_crash")
            if late.is_set():
                return None
            if code == NO_MEMORY or (code == -signal.SIGKILL and _oom_kills() != kills):
                return Reply(self._asked, fault="out_of_memory")
            if -code in _FROM_OUTSIDE:
                raise HelperKilled("The helper was ended from outside.") from error
            return None
        finally:
            watch.cancel()
        if not isinstance(reply, Reply):
            raise TypeError(type(reply))
        return reply


def _command(memory_bytes: int, cpu_s: float) -> list[str]:
    return [sys.executable, "-m", "worker.sandbox.child", str(memory_bytes), str(cpu_s)]


def _oom_kills() -> int:
    """How many processes this kernel has ended for want of memory (proc(5)): the one SIGKILL that is the picture's fault."""
    with suppress(OSError, ValueError), Path("/proc/vmstat").open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0


def send(pipe: IO[bytes] | None, data: bytes) -> None:
    """Write one message."""
    assert pipe is not None  # noqa: S101 -- made with PIPE
    pipe.write(_HEADER.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> bytes:
    """Read one message.

    :raises EOFError: the other end is gone.
    """
    assert pipe is not None  # noqa: S101 -- made with PIPE
    (length,) = _HEADER.unpack(_exactly(pipe, _HEADER.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
