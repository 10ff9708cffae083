"""The parent's side of the sandbox, which processes untrusted images in a child process with memory and time limits.

The sandbox decodes all images of inspections, and all images of batches that are not plain JPEGs. For images that are
tried alone, it executes every step except detection. So a crash or a hang affects only the child. Detection needs
no sandbox, because the model receives images that have been scaled to one size.

The child is started at the first request, is kept for later requests, and is replaced when it has died. Its exit status
shows why it died: a crash counts against the image, and a kill from outside never does. A child that cannot be started,
or that ends before it is ready to read a request, does not count either.
"""

import logging
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from shared.errors import Environment
from shared.states import SOLO_DEATHS_ALLOWED
from worker.sandbox.messages import EXIT_OUT_OF_MEMORY, Reply, receive, send, wait_until_ready
from worker.sandbox.requests import Request, Result_co
from worker.vision.errors import VisionError

_log = logging.getLogger("shelfsight.error")
_NOT_STARTED: Final = "The process that decodes images cannot be started. Retry later."
_SIGNALS_FROM_OUTSIDE: Final = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_CPU_SHARE: Final = 0.8
"""The CPU time limit of a request, as a share of its wall-clock limit. A child that reaches the CPU time limit is in an
endless computation, so a new child would reach the limit, too. A child that reaches only the wall-clock limit may have
been delayed by other processes on the machine, so its request is tried again in a new child."""


class SandboxKilled(Environment):
    """Raised when the child was killed from outside during a request. The image need not be faulty."""

    default_code = "helper_killed"


class Sandbox:
    """Executes requests in one child process, which is replaced when it has died.

    A sandbox is not thread-safe. Use it from one long-lived thread, because the kernel kills the child when the thread
    that started it ends (PR_SET_PDEATHSIG in prctl(2)).
    """

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        """Set the limits. No child is started yet.

        :param memory_bytes: the bytes of data memory that the child may use in addition to what it needs to start.
        :param timeout_s: the wall-clock seconds that one attempt to execute a request may take. The start of a child
            may take the same time.
        """
        self._memory_bytes, self._timeout_s, self._start_timeout_s = memory_bytes, timeout_s, timeout_s
        self._requests = 0
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, request: Request[Result_co]) -> Result_co:
        """Execute a request in the child and return its result.

        :raises VisionError: when the image is at fault. The code is ``decoder_crash`` when a child has reached its CPU
            time limit during this request, or when three children in a row have crashed or hung during this request.
        :raises SandboxKilled: when the child was killed from outside.
        :raises Environment: when the child could not be started. It has not seen the request.
        """
        self._requests += 1
        message = pickle.dumps((self._requests, request), pickle.HIGHEST_PROTOCOL)
        for _ in range(SOLO_DEATHS_ALLOWED):
            try:
                reply = self._exchange(message)
            except BaseException:  # kill the child, or the next request would read the late reply
                self.close()
                raise
            if reply is None:
                continue
            if reply.number != self._requests:
                self.close()
                raise RuntimeError("the sandbox child sent a reply to another request")
            if reply.fault is not None:
                raise VisionError(reply.fault)
            result: Result_co = reply.result
            return result
        raise VisionError("decoder_crash")

    def close(self) -> None:
        """Kill the child. Another thread may call this while ``run`` waits for a reply."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _exchange(self, message: bytes) -> Reply | None:
        """Send a request and return the reply, or None if the child has crashed or has hung."""
        child = self._child
        if child is None or child.poll() is not None:
            child = self._start()
        oom_kills = _oom_kills()
        with _killed_after(self._timeout_s, child) as timed_out:  # covers a hang while it reads, computes, or replies
            try:
                send(child.stdin, message)
                reply: Any = pickle.loads(receive(child.stdout))  # noqa: S301 -- the data comes from our own child process
            except (EOFError, OSError) as error:
                code = child.wait()
                self.close()
                if code == -signal.SIGPROF:
                    return Reply(self._requests, fault="decoder_crash")
                if timed_out.is_set():
                    return None
                if code == EXIT_OUT_OF_MEMORY or (code == -signal.SIGKILL and _oom_kills() != oom_kills):
                    return Reply(self._requests, fault="out_of_memory")
                if -code in _SIGNALS_FROM_OUTSIDE:
                    raise SandboxKilled("The process that decoded the image was killed. Retry later.") from error
                return None
        if timed_out.is_set():  # the reply came at the last moment
            self.close()
        if not isinstance(reply, Reply):
            raise TypeError(type(reply))
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        """Start a child, and wait until it is ready.

        :raises Environment: when this fails. No image is the cause, because the child has not read a request.
        """
        self.close()
        try:
            child = subprocess.Popen(  # noqa: S603 -- the command runs our own module
                _command(self._memory_bytes, self._timeout_s * _CPU_SHARE), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:  # the machine has no memory or no process left
            raise Environment(_NOT_STARTED) from error
        self._child = child
        with _killed_after(self._start_timeout_s, child) as timed_out:
            is_ready = wait_until_ready(child.stdout)
        if not is_ready or timed_out.is_set():
            child.kill()
            _log.error("the sandbox process was not ready to read a request, and ended with status %d", child.wait())
            self.close()
            raise Environment(_NOT_STARTED)
        return child


@contextmanager
def _killed_after(seconds: float, child: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill a child if the body takes longer than some seconds, and then set the event.

    :raises Environment: when no thread can be started that would kill the child. The body is not executed.
    """
    timed_out = threading.Event()

    def end() -> None:
        timed_out.set()
        child.kill()

    timer = threading.Timer(seconds, end)
    try:
        timer.start()
    except RuntimeError as error:  # the machine has no thread left
        raise Environment(_NOT_STARTED) from error
    try:
        yield timed_out
    finally:
        timer.cancel()
        timer.join()  # from now on, the child is not killed and the event does not change


def _command(memory_bytes: int, cpu_s: float) -> list[str]:
    return [sys.executable, "-m", "worker.sandbox.child", str(memory_bytes), str(cpu_s)]


def _oom_kills() -> int:
    """Return the number of processes that this kernel has killed because memory ran out (proc(5)).

    If this number has changed when a child is found to have been killed with SIGKILL, memory ran out, and the image
    counts as faulty. If the number is unchanged, the child was killed from outside, and the image is not at fault.
    """
    with suppress(OSError, ValueError), Path("/proc/vmstat").open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
