"""The signing keys of a process that forks other ones, and of those that it forks.

A process that is forked gets the keys that the forking process has read last. So the gunicorn master can replace its web
processes although the file of the keys has been damaged since the start.
"""

import os
import threading
import time
from pathlib import Path
from typing import Final

from shared.accounts.signing_keys import CHECK_EVERY_S, SigningKeyFile, SigningKeys, open_signing_keys
from shared.settings.access import Access

_files: Final[dict[Path, SigningKeyFile]] = {}


def keep(access: Access) -> None:
    """Open the signing keys in the settings, and keep them for this process and for those that it forks from now on.

    If they are kept already, nothing is read.

    :raises OSError: when the file cannot be read.
    :raises ValueError: when its content is not a value of the setting ``SIGNING_KEYS``.
    """
    if access.signing_keys_file not in _files:
        keys = open_signing_keys(access)
        if isinstance(keys, SigningKeyFile) and access.signing_keys_file is not None:
            _files[access.signing_keys_file] = keys


def start_reading() -> None:
    """Start a thread that reads the kept keys again when their file has changed. Call this once, in the forking process."""
    if _files:
        reading = threading.Lock()
        # The thread holds no other lock during a fork, which the forked process would never get.
        os.register_at_fork(before=reading.acquire, after_in_parent=reading.release, after_in_child=reading.release)
        threading.Thread(target=_read_again, args=(reading,), name="signing-keys", daemon=True).start()


def get(access: Access) -> SigningKeys:
    """Return the kept signing keys of this process or of the one that has forked it; if there are none, open them.

    :raises OSError: when the file cannot be read.
    :raises ValueError: when its content is not a value of the setting ``SIGNING_KEYS``.
    """
    kept = None if access.signing_keys.get_secret_value() or access.signing_keys_file is None else _files.get(access.signing_keys_file)
    return kept or open_signing_keys(access)


def _read_again(reading: threading.Lock) -> None:
    while True:
        time.sleep(CHECK_EVERY_S)
        with reading:
            for keys in _files.values():
                keys.current()
