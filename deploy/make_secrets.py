"""``python -m deploy.make_secrets``: on the first start, generate the passwords and store them on volumes.

Each server and the service itself have their own folder on their own volume: ``mongodb/`` holds the key file of the
replica set and the administrator's password, ``redis/`` holds the configuration of Redis, and ``app/`` holds the two
URLs with which the service connects to MongoDB and Redis, and the keys that sign tokens and URLs.

``nginx/`` holds what nginx needs, and is brought up to date at each run: the keys of signed URLs, which are derived from the
signing keys, and the certificate for HTTPS with its key. nginx reads changed files within seconds.
"""

import os
import secrets
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.accounts import signing_key_file
from shared.accounts.signing_key_file import CannotRotate
from shared.settings.access import parse_signing_keys
from shared.storage.durable_files import DurableWriter, sync_folder

ROOT: Final = Path("/secrets")
TLS: Final = Path("/tls")
"""Folder with the files that the settings TLS_CERTIFICATE and TLS_KEY name. A file without content stands for an empty setting."""
Chown = Callable[[Path, int, int], None]
"""A function that sets the owner and the group of a file, like ``os.chown``."""
_MONGODB_UID: Final = 999
"""Uid of the user ``mongodb`` in MongoDB's image. This user must own the key file, because mongod refuses
a key file that other users can read."""
_APP_UID: Final = 10001
_SIGNING_KEYS: Final = "app/signing_keys.json"
"""SECRETS_DIR would make a file ``signing_keys`` the value of SIGNING_KEYS, which is read only once (shared/settings/group.py)."""
_BYTES: Final = 24
_LOCK_WAIT_S: Final = 10.0


def main() -> None:
    """Create the missing secrets, update those of nginx, and print the names of the files that have changed.

    If this fails, print an error message and exit with code 1.
    """
    changed = create_secrets(ROOT, os.chown)
    try:
        changed += update_nginx_secrets(ROOT, os.chown, TLS, os.environ.get("SIGNING_KEYS", ""))
    except (ValueError, CannotRotate) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"written: {', '.join(changed)}\n" if changed else "all secrets exist\n")


def create_secrets(root: Path, chown: Chown) -> list[str]:
    """Create the missing secrets; each file is written atomically and durably.

    :param root: folder that contains the folders ``mongodb/``, ``redis/`` and ``app/``.
    :returns: the paths of the created files, relative to ``root``.
    """
    created: list[str] = []

    def read_or_create(name: str, uid: int, mode: int, generate: Callable[[], str]) -> str:
        path = root / name
        if not path.exists():
            _write(path, uid, mode, generate().encode(), chown)
            created.append(name)
        return path.read_text()

    _rename_signing_keys(root / "app/signing_keys", root / _SIGNING_KEYS)
    read_or_create("mongodb/key", _MONGODB_UID, 0o400, _generate_password)
    read_or_create("mongodb/administrator", _MONGODB_UID, 0o400, _generate_password)
    read_or_create("app/mongodb_url", _APP_UID, 0o400, lambda: f"mongodb://shelfsight:{_generate_password()}@mongodb:27017/?replicaSet=shelfsight&authSource=admin")
    url = read_or_create("app/redis_url", _APP_UID, 0o400, lambda: f"redis://:{_generate_password()}@redis:6379/0")
    read_or_create(_SIGNING_KEYS, _APP_UID, 0o400, signing_key_file.generate)
    password = url.removeprefix("redis://:").partition("@")[0]
    # The uid of Redis differs between versions of its image, so every user can read this file. This is safe, because
    # only the containers of Redis and of this program mount the volume.
    read_or_create("redis/redis.conf", 0, 0o444, lambda: f"requirepass {password}\n")
    return created


def update_nginx_secrets(root: Path, chown: Chown, tls: Path, signing_keys: str) -> list[str]:
    """Write the files in ``nginx/`` whose content has changed; each file is written atomically and durably.

    :param root: folder that contains the folders ``app/`` and ``nginx/``.
    :param tls: folder with the files ``certificate.pem`` and ``key.pem``, which are empty or missing without HTTPS.
    :param signing_keys: the setting ``SIGNING_KEYS``. If it is empty, the keys in ``app/`` are used, as by the service.
    :returns: the paths of the written and removed files, relative to ``root``.
    :raises ValueError: when the signing keys or the certificate are invalid. The message contains no secret.
    :raises CannotRotate: when another process does not stop replacing the signing keys.
    """
    with signing_key_file.locked((root / _SIGNING_KEYS).parent, _LOCK_WAIT_S):  # a rotation writes the keys of nginx, too
        keys = parse_signing_keys(signing_keys or (root / _SIGNING_KEYS).read_text())
        contents = {"nginx/signed_url_keys.json": signing_key_file.dump_url_keys(keys).encode(), "nginx/tls.pem": _read_certificate(tls)}
        return [name for name, content in contents.items() if _update(root / name, content, chown)]


def _rename_signing_keys(old: Path, new: Path) -> None:
    """Rename the file of the signing keys of an older version, whose keys stay valid."""
    if not old.exists():
        return
    if new.exists():
        old.unlink()
    else:
        old.rename(new)
    sync_folder(new.parent)


def _read_certificate(tls: Path) -> bytes:
    """Return the certificates and their key, one after the other; nothing if there are none.

    They are one file, so that nginx never reads a certificate with the key of another one.
    """
    certificate, key = (path.read_bytes() if path.exists() else b"" for path in (tls / "certificate.pem", tls / "key.pem"))
    if not certificate and not key:
        return b""
    if not certificate or not key:
        raise ValueError("TLS_CERTIFICATE and TLS_KEY need each other; set both, or none of them.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls / "certificate.pem", tls / "key.pem", password="")  # an encrypted key is an error, not a question
    except ssl.SSLError as error:
        raise ValueError(f"TLS_CERTIFICATE and TLS_KEY must be a certificate and its key in PEM format, without a password ({error.reason}).") from None
    return certificate.rstrip() + b"\n" + key


def _update(path: Path, content: bytes, chown: Chown) -> bool:
    """Write a file, or remove it if it shall be empty. Return whether this has changed anything."""
    if (path.read_bytes() if path.exists() else b"") == content:
        return False
    if content:
        _write(path, _APP_UID, 0o400, content, chown)
    else:
        path.unlink()
        sync_folder(path.parent)
    return True


def _write(path: Path, uid: int, mode: int, content: bytes, chown: Chown) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    # The file must be durable, because a file that a power failure has left empty would never be generated again.
    DurableWriter().write_many([(temporary, [content])])
    temporary.chmod(mode)
    chown(temporary, uid, uid)
    temporary.replace(path)
    sync_folder(path.parent)


def _generate_password() -> str:
    return secrets.token_hex(_BYTES)


if __name__ == "__main__":
    main()
