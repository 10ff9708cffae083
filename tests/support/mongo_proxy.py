"""TCP proxies in front of MongoDB. One can drop or delay a commit or its reply, and one can let MongoDB disappear."""

import asyncio
import threading
from typing import Final, Literal

_COMMIT: Final = b"commitTransaction"
CommitFault = Literal["pass", "lose_answer", "lose_commit", "hold_commit"]


class _Proxy:
    """Accepts connections on loopback, and handles each of them with ``_serve``. Subclasses set their members first."""

    def __init__(self, target: int) -> None:
        """Listen on a free port, and run the proxy in a thread.

        :param target: the port of the server on loopback.
        """
        self._target = target
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._listening.wait(60)

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
        raise NotImplementedError


class CommitFaultProxy(_Proxy):
    """Forwards all bytes to ``target`` on loopback until a commit passes through, then applies ``fault`` to the commit.

    - ``pass``: The commit is forwarded, too.
    - ``lose_answer``: The commit is forwarded, but the client's connection is closed before the reply.
    - ``lose_commit``: The commit is not forwarded, and the client's connection is closed.
    - ``hold_commit``: The client's connection is closed at once. The commit is forwarded after ``release_commits`` was
      called.

    With ``refuse_reconnects``, the proxy also closes all connections that are opened after the fault, as if this client
    could no longer reach the server.
    """

    def __init__(self, target: int, fault: CommitFault, *, refuse_reconnects: bool = False) -> None:
        self._fault, self._refuse_reconnects = fault, refuse_reconnects
        self._closed = False
        self._released = asyncio.Event()
        self.cuts = 0
        super().__init__(target)

    def release_commits(self) -> None:
        """Forward the commits that ``hold_commit`` has delayed."""
        self._loop.call_soon_threadsafe(self._released.set)

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


class OutageProxy(_Proxy):
    """Forwards all bytes to ``target`` on loopback, unless the server is to seem away."""

    def __init__(self, target: int) -> None:
        self._refuses = False
        self._forwards = asyncio.Event()
        self._forwards.set()
        self._writers: set[asyncio.StreamWriter] = set()
        super().__init__(target)

    def refuse(self) -> None:
        """Close all connections, and each new one, as if the server had been stopped."""
        asyncio.run_coroutine_threadsafe(self._set(refuses=True, forwards=True), self._loop).result(60)

    def freeze(self) -> None:
        """Keep all connections, and accept new ones, but forward nothing, as if the server had been suspended."""
        asyncio.run_coroutine_threadsafe(self._set(refuses=False, forwards=False), self._loop).result(60)

    def restore(self) -> None:
        """Forward all bytes again."""
        asyncio.run_coroutine_threadsafe(self._set(refuses=False, forwards=True), self._loop).result(60)

    async def _set(self, *, refuses: bool, forwards: bool) -> None:
        self._refuses = refuses
        if forwards:
            self._forwards.set()
        else:
            self._forwards.clear()
        if refuses:
            for writer in self._writers:
                writer.close()

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            client_writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        writers = {client_writer, server_writer}
        self._writers |= writers
        try:
            await asyncio.gather(self._forward(client_reader, server_writer), self._forward(server_reader, client_writer))
        except asyncio.CancelledError:
            pass
        finally:
            self._writers -= writers

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await _pump(source, sink, self._forwards)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, forwards: asyncio.Event | None = None) -> None:
    """Copy all bytes from ``source`` to ``sink``. If ``forwards`` is given, wait for this event before each write."""
    try:
        while data := await source.read(65536):
            if forwards is not None:
                await forwards.wait()
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
