"""The configuration of gunicorn: ``gunicorn -c web/server/gunicorn_conf.py 'web.app:create_app()'``."""

import gc
from pathlib import Path

from shared import allocator, settings

_settings = settings.read()

bind = f"{_settings.web.host}:{_settings.web.port}"
workers = _settings.web.workers
limit_request_line = 8190  # fits a query with every filter
worker_class = "web.server.gunicorn_worker.Worker"
threads = _settings.web.threads
preload_app = False  # a MongoClient must be created after the fork
control_socket_disable = True  # two instances on one machine would use the same socket
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- writing the heartbeat file can stall on a disk
timeout = 60
graceful_timeout = 30
keepalive = 15
max_requests = 20_000
max_requests_jitter = 5_000
accesslog = None  # web/http/access_log.py writes a structured one
errorlog = "-"
forwarded_allow_ips = ""  # trust no proxy here: web/http/trusted_proxies.py alone decides


def post_fork(_arbiter: object, _worker: object) -> None:
    """Set up the allocator of a worker process."""
    allocator.configure(allocator.WEB)


def post_worker_init(_worker: object) -> None:
    """Raise the thresholds of garbage collection.

    A page of 3,200 images makes 200,000 objects; with Python's default thresholds half of its time is collection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
