"""A TCP proxy in front of MongoDB that can drop a commit, drop the reply to a commit, or delay a commit."""

import asyncio
import threading
from typing import Final, Literal

_COMMIT: Final = b"commitTransaction"
CommitFault = Literal["pass", "lose_answer", "lose_commit", "hold_commit"]


class CommitFaultProxy:
    """Forwards all bytes to ``port`` on loopback until a commit passes through, then applies ``fault`` to the commit.

    - ``pass``: The commit is forwarded, too.
    - ``lose_answer``: The commit is forwarded, but the client's connection is closed before the reply.
    - ``lose_commit``: The commit is not forwarded, and the client's connection is closed.
    - ``hold_commit``: The client's connection is closed at once. The commit is forwarded after ``release_commits`` was
      called.

    With ``refuse_reconnects``, the proxy also closes all connections that are opened after the fault, as if this client
    could no longer reach the server.
    """

    def __init__(self, port: int, fault: CommitFault, *, refuse_reconnects: bool = False) -> None:
        """Listen on a free port, and run the proxy in a thread."""
        self._target, self._fault, self._refuse_reconnects = port, fault, refuse_reconnects
        self._closed = False
        self._released = asyncio.Event()
        self.cuts = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._listening.wait(60)

    def release_commits(self) -> None:
        """Forward the commits that ``hold_commit`` has delayed."""
        self._loop.call_soon_threadsafe(self._released.set)

    def close(self) -> None:
        """Stop the proxy and close all connections."""
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

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        if self._closed:
            client_writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        replies = asyncio.create_task(_pump(server_reader, client_writer))
        try:
            while data := await client_reader.read(65536):
                if self._fault != "pass" and _COMMIT in data:
                    await self._cut(data, replies, client_writer, server_reader, server_writer)
                    return
                server_writer.write(data)
                await server_writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            replies.cancel()
            client_writer.close()
            server_writer.close()

    async def _cut(
        self,
        data: bytes,
        replies: "asyncio.Task[None]",
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        replies.cancel()
        self.cuts += 1
        self._closed = self._refuse_reconnects
        if self._fault == "hold_commit":
            client_writer.close()
            await self._released.wait()
        if self._fault != "lose_commit":
            server_writer.write(data)
            await server_writer.drain()
            await server_reader.read(65536)  # wait for the server's reply, and drop it


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
