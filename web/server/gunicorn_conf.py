"""How gunicorn runs the web front: ``gunicorn -c web/server/gunicorn_conf.py 'web.app:create_app()'``."""

import ctypes
import gc
from pathlib import Path

from shared import settings

_settings = settings.read()
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h

bind = f"{_settings.web.host}:{_settings.web.port}"
workers = _settings.web.workers
limit_request_line = 8190  # a query with every filter in it
worker_class = "web.server.gunicorn_worker.Worker"
threads = _settings.web.threads
preload_app = False  # a MongoClient must be made after the fork
control_socket_disable = True  # two instances on one machine collide on it
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- a heartbeat file on a disk can stall
timeout = 60
graceful_timeout = 30
keepalive = 15
max_requests = 20_000
max_requests_jitter = 5_000
accesslog = None  # the app writes its own, structured
errorlog = "-"
forwarded_allow_ips = ""  # nobody: whose word counts is decided in web/http/trusted_proxies.py, and there alone


def post_fork(_arbiter: object, _worker: object) -> None:
    """Let glibc keep the memory of one upload for the next.

    By default every large buffer is mapped anew and zeroed page by page: thousands of page faults a request, a third of
    its CPU time (measured). Two arenas instead of eight a core bound what is kept.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    for option, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 256 << 20), (_M_ARENA_MAX, 2)):
        mallopt(option, value)


def post_worker_init(_worker: object) -> None:
    """A page of 3,200 images makes 200,000 objects; with Python's default thresholds half of its time is collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
