"""The passwords of the embedded servers. They are generated once and kept in a folder that only its owner can open.

Whatever is missing is generated again: the key file and the password of Redis are read by the servers at every start,
and the password of MongoDB's user is set at every start.
"""

import os
import re
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.local.servers.errors import Unusable

_BYTES: Final = 24
_KEY: Final = "mongodb.key"
_PASSWORD: Final = "mongodb.password"  # noqa: S105 -- the name of a file
_REDIS: Final = "redis.conf"
_FILES: Final = ((_KEY, ""), (_PASSWORD, ""), (_REDIS, "requirepass "))
"""The names of the files, and what is before the secret in each."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secrets in one folder.

    ``member_key`` is the content of the key file with which the members of the replica set authenticate to each other.
    ``mongodb_password`` is that of the user of the service. All consist of letters and digits, so they need no quoting
    in a URL.
    """

    folder: Path
    member_key: str = field(repr=False)
    mongodb_password: str = field(repr=False)
    redis_password: str = field(repr=False)

    @property
    def key_file(self) -> Path:
        """The file with ``member_key``."""
        return self.folder / _KEY

    @property
    def redis_config(self) -> Path:
        """A configuration file of Redis, which contains nothing but the password."""
        return self.folder / _REDIS


def check_permissions(folder: Path) -> None:
    """Check that the file system of a folder can keep other users from reading a file.

    :raises Unusable: when it cannot.
    :raises OSError: when the folder cannot be written.
    """
    with tempfile.NamedTemporaryFile(dir=folder) as file:  # its mode is 0600 where that is possible
        if Path(file.name).stat().st_mode & 0o077:
            raise Unusable(f"The file system of {folder} does not support file permissions, so every user could read the passwords; choose another folder with --data.")


def create_credentials(folder: Path) -> Credentials:
    """Generate the secrets that are missing or damaged, and return all.

    :raises OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name, prefix in _FILES:
        path = folder / name
        if _read(path, prefix) is None:
            write_secret(path, f"{prefix}{secrets.token_hex(_BYTES)}\n")
        path.chmod(0o600)
    return load_credentials(folder)


def load_credentials(folder: Path) -> Credentials:
    """Read the secrets in a folder.

    :raises Unusable: when there are none yet, or they are damaged.
    :raises PermissionError: when the folder belongs to another user.
    """
    key, password, redis = (_read(folder / name, prefix) for name, prefix in _FILES)
    if key is None or password is None or redis is None:
        raise Unusable(f"There are no passwords in {folder} yet, or they are damaged; scripts/start generates them.")
    return Credentials(folder, key, password, redis)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically and durably.

    :raises OSError: when the file cannot be written.
    """
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)  # a file left behind by a crash may have another mode
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path, prefix: str) -> str | None:
    """Return the secret in a file; None if the file does not exist, or contains anything else."""
    try:
        found = re.fullmatch(rf"{prefix}([0-9a-f]{{{2 * _BYTES}}})\n?", path.read_bytes().decode("ascii", "replace"))
    except FileNotFoundError:
        return None
    return found[1] if found else None
