"""The keys that sign access tokens. They are generated once and kept in the folder of the passwords."""

import json
import secrets
from pathlib import Path
from typing import Final

from scripts.local.servers.credentials import write_secret

_FILE: Final = "signing_keys"
_BYTES: Final = 32


def generate_signing_keys() -> str:
    """Return a value of the setting ``SIGNING_KEYS`` with one new key."""
    return json.dumps({"1": secrets.token_hex(_BYTES)})


def read_or_create_signing_keys(folder: Path) -> str:
    """Return the value of the setting ``SIGNING_KEYS``. If there are no keys in ``folder``, or the file is damaged, generate one.

    :raises OSError: when the folder does not exist or cannot be written.
    """
    path = folder / _FILE
    try:
        return json.dumps(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        keys = generate_signing_keys()
        write_secret(path, f"{keys}\n")
        return keys
