"""The gunicorn worker, apart from what needs clients (``tests/integration/web/http``)."""

import logging
import os
import socket
from concurrent.futures import Future

from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from web.server.gunicorn_worker import Worker


def test_a_connection_that_a_broken_response_has_closed_is_counted_once() -> None:
    """Otherwise a worker that stops waits for the whole grace period."""
    config = Config()
    worker = Worker(0, os.getpid(), [], None, 30, config, logging.getLogger("gunicorn"))
    ours, clients = socket.socketpair()
    connections = [TConn(config, sock, None, None) for sock in (ours, clients)]
    worker.nr_conns = len(connections)
    ours.close()
    for connection in connections:
        finished: Future[bool] = Future()
        finished.set_result(False)
        worker.finish_request(connection, finished)
    assert worker.nr_conns == 0
    assert clients.fileno() == -1
    worker.tmp.close()
