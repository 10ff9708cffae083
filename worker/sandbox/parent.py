"""The parent's side of the sandbox, which processes untrusted images in a child process with memory and time limits.

The sandbox decodes all images of inspections, and all images of batches that are not plain JPEGs. For images that are
tried alone, it executes every step except detection. So a crash or a hang affects only the child. Detection needs
no sandbox, because the model receives images that have been scaled to one size.

The child is started at the first request, is kept for later requests, and is replaced when it has died. Its exit status
shows why it died: a crash counts against the image, and a kill from outside never does.
"""

import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from shared.errors import Environment
from shared.states import SOLO_DEATHS_ALLOWED
from worker.sandbox.messages import EXIT_OUT_OF_MEMORY, Reply, receive, send
from worker.sandbox.requests import Request, Result_co
from worker.vision.errors import VisionError

_SIGNALS_FROM_OUTSIDE: Final = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_CPU_SHARE: Final = 0.8
"""The CPU time limit of a request, as a share of its wall-clock limit. A child that reaches the CPU time limit is in an
endless computation, so a new child would reach the limit, too. A child that reaches only the wall-clock limit may have
been delayed by other processes on the machine, so its request is tried again in a new child."""


class SandboxKilled(Environment):
    """Raised when the child was killed from outside or could not be started. The image need not be faulty."""

    default_code = "helper_killed"


class Sandbox:
    """Executes requests in one child process, which is replaced when it has died.

    A sandbox is not thread-safe. Use it from one long-lived thread, because the kernel kills the child when the thread
    that started it ends (PR_SET_PDEATHSIG in prctl(2)).
    """

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        """Set the limits. No child is started yet.

        :param memory_bytes: the bytes of data memory that the child may use in addition to what it needs to start.
        :param timeout_s: the wall-clock seconds that one attempt to execute a request may take.
        """
        self._memory_bytes, self._timeout_s = memory_bytes, timeout_s
        self._requests = 0
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, request: Request[Result_co]) -> Result_co:
        """Execute a request in the child and return its result.

        :raises VisionError: when the image is at fault. The code is ``decoder_crash`` when a child has reached its CPU
            time limit during this request, or when three children in a row have crashed or hung during this request.
        :raises SandboxKilled: when the child was killed from outside or could not be started.
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
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = _command(self._memory_bytes, self._timeout_s * _CPU_SHARE)
            try:
                self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 -- the command runs our own module
            except OSError as error:  # the machine has no memory or no process left
                raise SandboxKilled("The process that decodes images cannot be started. Retry later.") from error
        child = self._child
        oom_kills = _oom_kills()
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            child.kill()

        timer = threading.Timer(self._timeout_s, end)  # covers a hang while the child reads, computes, or replies
        timer.start()
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
        finally:
            timer.cancel()
        if not isinstance(reply, Reply):
            raise TypeError(type(reply))
        return reply


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
