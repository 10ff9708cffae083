"""What ``scripts/start`` checks before it starts a process: the settings, the paths, the port, the disk, and the programs."""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

from scripts.local import access_modes, messages
from scripts.local.installation import ROOT, Installation, load_installation
from scripts.local.servers.credentials import check_permissions
from scripts.local.servers.errors import Unusable
from scripts.local.servers.ports import is_free
from scripts.local.signing_key_setup import check_signing_keys
from shared.accounts.signing_key_file import describe_exposure
from shared.settings import Access, Settings, explain

_PORT_WAIT_S: Final = 15.0
_UNSUITABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that a path must not contain: control characters and line ends, which would break the lines of the logs,
and bytes that are not UTF-8 (Python reads them as surrogates), which neither MongoDB nor the settings accept."""
_console = Console(stderr=True, highlight=False, markup=False)


class CannotStart(Exception):
    """Shelfsight cannot be started; the message is one line with the cause and the remedy."""


def check(installation: Installation) -> None:
    """Check, before any process is started, that nothing prevents the start.

    :raises CannotStart: when Shelfsight is already running, the web port is in use, a setting is invalid, or disk space
        is short.
    :raises Unusable: when this machine cannot run one of the embedded servers, or the file system has no permissions.
    :raises OSError: when the data folder cannot be created.
    """
    settings = read_settings()
    if fault := access_modes.check_host(installation.web_host):
        raise CannotStart(fault)
    check_transport(settings)
    check_paths(installation)
    if installation.find_lock_holder() is not None:
        raise already_running(installation)
    used = load_installation(installation.data) is not None
    installation.prepare()
    until = time.monotonic() + _PORT_WAIT_S
    while (installation.run / "guard.pid").exists() and not is_free(installation.port, installation.web_host) and time.monotonic() < until:
        time.sleep(0.1)  # after a crash, the children of a killed process end within a second or two
    if not is_free(installation.port, installation.web_host):
        raise CannotStart(f"port {installation.port} is in use; choose another port with --port, or stop the program that listens on it")
    check_disk(installation, settings.blobs.min_free_bytes, used=used)
    check_permissions(installation.data)
    if installation.signing_keys_file is not None and installation.signing_keys_file.exists():
        check_signing_keys(installation.signing_keys_file, is_production=settings.access.is_production)
        warn_of_exposed_keys(installation)
    _choose_programs(installation)


def read_settings() -> Settings:
    """Return the settings that the processes will have.

    The keys that sign tokens are generated later, in the data folder. Unless the environment sets them, the name of a file
    stands for them here.

    :raises CannotStart: when a setting is invalid.
    """
    try:
        if os.environ.get("SIGNING_KEYS"):
            return Settings()
        given = os.environ.get("SIGNING_KEYS_FILE")
        access = Access(signing_keys_file=Path(given or "signing_keys"))
        if given:
            check_signing_keys(Path(given), is_production=access.is_production)
        return Settings(access=access)
    except (ValidationError, SettingsError) as error:
        raise CannotStart(explain(error)) from error
    except Unusable as error:
        raise CannotStart(str(error)) from error


def check_transport(settings: Settings) -> None:
    """Warn if passwords and images travel without TLS, or if the proxy with TLS is not known.

    :raises CannotStart: when such a proxy is not known in production.
    """
    if settings.proxy_fault and settings.access.is_production:
        raise CannotStart(settings.proxy_fault)
    if settings.proxy_fault:
        _console.print(f"warning: {settings.proxy_fault}", soft_wrap=True)
    elif not settings.web.is_on_loopback and not settings.web.public_url.startswith("https://"):
        _console.print(
            f"warning: WEB_HOST={settings.web.host} is reached over plain HTTP, so everybody on the way can read passwords, keys and images. Put a proxy with TLS in front "
            "of it, and set PUBLIC_URL to the https address and WEB_TRUSTED_PROXIES to the addresses of the proxy",
            soft_wrap=True,
        )


def warn_of_exposed_keys(installation: Installation) -> None:
    """Warn of a file of signing keys that other users can read. The start closes a file that it has created itself."""
    path = installation.signing_keys_file
    if path is not None and "SIGNING_KEYS_FILE" in installation.variables and (exposure := describe_exposure(path)):
        _console.print(f"warning: {exposure}", soft_wrap=True)


def _choose_programs(installation: Installation) -> None:
    """Check that the embedded servers run on this machine. If this takes a download, show its progress.

    :raises Unusable: when one of them does not.
    """
    with _console.status("Choosing the servers ...") as line:
        announced = False

        def show(received: int, total: int) -> None:
            nonlocal announced
            line.update(f"Downloading MongoDB ... {received >> 20}{f' of {total >> 20}' if total else ''} MB")
            if not announced and not _console.is_terminal:
                _console.print("Downloading MongoDB ...")
            announced = True

        installation.choose_programs(lambda sentence: _console.print(sentence, soft_wrap=True), show)


def check_paths(installation: Installation) -> None:
    """Check that the data folder and the clone have suitable paths, and that the folder belongs to no other program.

    :raises CannotStart: when a path is unsuitable, or the folder ``run`` contains other files.
    """
    if _UNSUITABLE.search(str(installation.data)):
        raise CannotStart(f"the path {str(installation.data)!r} contains a control character, a line end, or bytes that are not UTF-8; choose another folder with --data")
    if _UNSUITABLE.search(str(ROOT)) or os.pathsep in str(ROOT):
        raise CannotStart(f"the path of this clone, {str(ROOT)!r}, contains a colon, a control character, a line end, or bytes that are not UTF-8; move the clone")
    foreign = installation.find_foreign_file()
    if foreign is not None:
        raise CannotStart(f"{foreign} belongs to another program; choose another folder with --data")


def check_disk(installation: Installation, watermark: int, *, used: bool) -> None:
    """Check that there is enough disk space for uploads to be accepted.

    If the folder already holds data, Shelfsight is started even without enough space, so that the data can be viewed
    and deleted; a warning is printed.

    :raises CannotStart: when disk space is short for a new installation.
    """
    free = shutil.disk_usage(installation.data / "blobs").free
    if free >= watermark:
        return
    shortage = f"only {free / 1e9:.1f} GB are free under {installation.data}, and uploads are refused below {watermark / 1e9:.1f} GB"
    if not used:
        raise CannotStart(f"{shortage}; free disk space, choose another folder with --data, or lower BLOBS_MIN_FREE_BYTES")
    _console.print(f"warning: {shortage}; free disk space, delete batches, or lower BLOBS_MIN_FREE_BYTES", soft_wrap=True)


def already_running(installation: Installation) -> CannotStart:
    """Return the error for a data folder with which Shelfsight is already running."""
    running = load_installation(installation.data) or installation
    return CannotStart(
        f"Shelfsight is already running at {running.url} with the data folder {installation.data}; see {messages.command('status', installation.data)}, "
        f"stop it with {messages.command('stop', installation.data)}, or choose another folder with --data"
    )
