"""The gunicorn configuration, used as ``gunicorn -c web/server/gunicorn_conf.py 'web.app:create_app()'``."""

import gc
from pathlib import Path

from shared import allocator, settings

_settings = settings.read()

bind = f"{_settings.web.host}:{_settings.web.port}"
workers = _settings.web.workers
limit_request_line = 8190  # long enough for a query string with every filter
worker_class = "web.server.gunicorn_worker.Worker"
threads = _settings.web.threads
preload_app = False  # disabled, because a MongoClient must be created after the fork
control_socket_disable = True  # two instances on one machine would otherwise use the same control socket
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- on a disk, writing the heartbeat file can block
timeout = 60
graceful_timeout = 30
keepalive = 15
max_requests = 20_000
max_requests_jitter = 5_000
accesslog = None  # disabled, because web/http/access_log.py writes a structured access log
errorlog = "-"
forwarded_allow_ips = ""  # gunicorn trusts no proxy, because web/http/trusted_proxies.py decides which proxies to trust


def post_fork(_arbiter: object, _worker: object) -> None:
    """Configure the memory allocator of a new web process."""
    allocator.configure(allocator.WEB)


def post_worker_init(_worker: object) -> None:
    """Raise the garbage collection thresholds, so that garbage collection runs less often.

    A page with 3,200 images creates 200,000 objects. With Python's default thresholds, half of the time for such a page
    is spent on garbage collection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
