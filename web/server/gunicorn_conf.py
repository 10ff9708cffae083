"""How gunicorn runs the web front: ``gunicorn -c web/server/gunicorn_conf.py 'web.app:create_app()'``."""

import gc
from pathlib import Path

from shared import allocator, settings

_settings = settings.read()

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
    """Set up the allocator of a worker process."""
    allocator.configure(allocator.WEB)


def post_worker_init(_worker: object) -> None:
    """A page of 3,200 images makes 200,000 objects; with Python's default thresholds half of its time is collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
