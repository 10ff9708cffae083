"""The sandbox: processes an untrusted image in a child process with limits on memory and time.

The sandbox decodes every image that is not a plain JPEG, executes every step of images that are tried alone, and processes all images that
come by URL. So a crash or a hang affects the child only. (The model does not need it: it sees images scaled to one size.) The child starts
with the first request, is kept while it works, and is replaced when it dies. Its exit status shows how it died: a crash counts against the
image; a kill from outside never does.
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
"""CPU time limit of a request, as a share of its time limit. A child that reaches it is in an endless computation, and another child would be too.
A child that only waited may have been delayed by the machine, and is tried again."""


class SandboxKilled(Environment):
    """The child was killed from outside; this says nothing about the image."""

    default_code = "helper_killed"


class Sandbox:
    """One child process. Not thread-safe: the child is killed when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG)."""

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        """Set the limits of each request. No child is started yet.

        :param memory_bytes: data memory of the child beyond what it needs to start.
        :param timeout_s: wall-clock seconds for one request.
        """
        self._memory_bytes, self._timeout_s = memory_bytes, timeout_s
        self._requests = 0
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, request: Request[Result_co]) -> Result_co:
        """Execute a request in the child and return its result.

        :raises VisionError: the image is at fault; ``decoder_crash`` after one child reached its CPU time limit, or three crashed or hung.
        :raises SandboxKilled: the child was killed from outside.
        """
        self._requests += 1
        message = pickle.dumps((self._requests, request), pickle.HIGHEST_PROTOCOL)
        for _ in range(SOLO_DEATHS_ALLOWED):
            try:
                reply = self._exchange(message)
            except BaseException:  # whatever interrupted the wait: a reply left in the pipe would be read as the next request's
                self.close()
                raise
            if reply is None:
                continue
            if reply.number != self._requests:
                self.close()
                raise RuntimeError("the sandbox child replied to another request")
            if reply.fault is not None:
                raise VisionError(reply.fault)
            result: Result_co = reply.result
            return result
        raise VisionError("decoder_crash")

    def close(self) -> None:
        """Kill the child. May be called from another thread while ``run`` waits."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _exchange(self, message: bytes) -> Reply | None:
        """Send a request and return the reply; None when the child crashed or hung."""
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(_command(self._memory_bytes, self._timeout_s * _CPU_SHARE), stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 -- our own module
        child = self._child
        oom_kills = _oom_kills()
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            child.kill()

        timer = threading.Timer(self._timeout_s, end)  # covers a hang while reading, computing and replying
        timer.start()
        try:
            send(child.stdin, message)
            reply: Any = pickle.loads(receive(child.stdout))  # noqa: S301 -- from our own child
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
                raise SandboxKilled("The process that decoded the image was killed; retry later.") from error
            return None
        finally:
            timer.cancel()
        if not isinstance(reply, Reply):
            raise TypeError(type(reply))
        return reply


def _command(memory_bytes: int, cpu_s: float) -> list[str]:
    return [sys.executable, "-m", "worker.sandbox.child", str(memory_bytes), str(cpu_s)]


def _oom_kills() -> int:
    """Count the processes that this kernel has killed when memory ran out (proc(5)): the only SIGKILL that is the image's fault."""
    with suppress(OSError, ValueError), Path("/proc/vmstat").open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
