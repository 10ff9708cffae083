"""The gunicorn configuration, used as ``gunicorn -c web/server/gunicorn_conf.py 'web.app:create_app()'``."""

import gc
import sys
from pathlib import Path
from typing import Any

from shared import allocator, settings, telemetry
from shared.accounts import inherited_signing_keys
from shared.accounts.signing_key_file import describe_exposure

_settings = settings.read()
if _settings.access.is_production and _settings.proxy_fault:
    sys.exit(f"error: {_settings.proxy_fault}")
telemetry.configure(_settings.log, "web")
_keys_file = None if _settings.access.signing_keys.get_secret_value() else _settings.access.signing_keys_file
try:
    inherited_signing_keys.keep(_settings.access)
except (OSError, ValueError) as error:
    sys.exit(f"error: invalid setting SIGNING_KEYS_FILE: {error}")

bind = _settings.web.address
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


def on_starting(arbiter: Any) -> None:
    """Refuse an address from ``GUNICORN_CMD_ARGS`` or the command line, because the settings are checked with their own.

    :raises SystemExit: when gunicorn would listen on anything but the address in the settings.
    """
    if arbiter.cfg.bind != [bind]:
        sys.exit(f"error: gunicorn was told to listen on {', '.join(arbiter.cfg.bind)} instead of {bind}; remove the option --bind (GUNICORN_CMD_ARGS), and set WEB_HOST and WEB_PORT")


def when_ready(_arbiter: object) -> None:
    """Log unsafe settings, and read changed signing keys from now on, for new web processes even if the file is damaged later."""
    if _settings.proxy_fault:
        telemetry.errors.warning("%s", _settings.proxy_fault)
    if _keys_file is not None and (exposure := describe_exposure(_keys_file)):
        telemetry.errors.warning("%s", exposure)
    inherited_signing_keys.start_reading()


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
