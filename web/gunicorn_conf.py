"""How gunicorn runs the web front: ``gunicorn -c web/gunicorn_conf.py 'web.app:create_app()'``."""

import gc
import os
from pathlib import Path

from shared.settings import Settings

_settings = Settings()

# Until accounts exist nothing but loopback is bound; OPEN_BEHIND_LOOPBACK_PROXY is for a proxy that is itself on loopback.
_host = _settings.web.host if _settings.web.open_behind_loopback_proxy else "127.0.0.1"
bind = f"{_host}:{_settings.web.port}"
workers = int(os.environ.get("WEB_WORKERS", "2"))
worker_class = "gthread"
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
forwarded_allow_ips = "127.0.0.1"


def post_worker_init(_worker: object) -> None:
    """A page of 3,200 images makes 200,000 objects; with Python's default thresholds half of its time is collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
