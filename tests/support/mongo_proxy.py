"""A TCP proxy before MongoDB that loses the answer to a commit, keeps the commit itself, or holds it back for a while."""

import asyncio
import threading
from typing import Final, Literal

_COMMIT: Final = b"commitTransaction"
CommitFault = Literal["pass", "lose_answer", "lose_commit", "hold_commit"]


class CommitFaultProxy:
    """Passes bytes to ``port`` on loopback, until a commit comes and ``way`` says otherwise.

    ``lose_answer``: the server commits, the client's connection is cut. ``lose_commit``: the commit never reaches the server.
    ``hold_commit``: the commit reaches the server when ``let_go`` is called, its client's connection cut long before. ``away``: after the cut
    nobody is let in any more, as if the server were gone for this client.
    """

    def __init__(self, port: int, way: CommitFault, *, away: bool = False) -> None:
        """Listen on a free port; a thread of its own does the work."""
        self._target, self._way, self._away = port, way, away
        self._closed = False
        self._let_go = asyncio.Event()
        self.cuts = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._listening.wait(60)

    def let_go(self) -> None:
        """Pass the commits on that were held back."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def close(self) -> None:
        """End it and cut all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        server.close()
        self._loop.run_until_complete(server.wait_closed())
        self._loop.close()

    async def _serve(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        if self._closed:
            near_out.close()
            return
        far, far_out = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.create_task(_pump(far, near_out))
        try:
            while data := await near.read(65536):
                if self._way != "pass" and _COMMIT in data:
                    await self._cut(data, back, near_out, far, far_out)
                    return
                far_out.write(data)
                await far_out.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            back.cancel()
            near_out.close()
            far_out.close()

    async def _cut(
        self,
        data: bytes,
        back: "asyncio.Task[None]",
        near_out: asyncio.StreamWriter,
        far: asyncio.StreamReader,
        far_out: asyncio.StreamWriter,
    ) -> None:
        back.cancel()
        self.cuts += 1
        self._closed = self._away
        if self._way == "hold_commit":
            near_out.close()
            await self._let_go.wait()
        if self._way != "lose_commit":
            far_out.write(data)
            await far_out.drain()
            await far.read(65536)  # the server's answer, which nobody gets


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
