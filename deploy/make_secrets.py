"""``python -m deploy.make_secrets``: the passwords of an installation, made once and kept on volumes; nobody has to think of one.

Each server and the service see a folder of their own: ``mongodb/`` has the replica set's key and the administrator's password,
``redis/`` the server's configuration, ``app/`` the two addresses with which the service connects.
"""

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.storage.durable_files import DurableWriter, sync_folder

ROOT: Final = Path("/secrets")
_MONGODB_UID: Final = 999
"""Of the user ``mongodb`` in MongoDB's image: mongod refuses a key that anybody else may read."""
_APP_UID: Final = 10001
_BYTES: Final = 24


def main() -> None:
    """Make what is not there yet."""
    made = make(ROOT, os.chown)
    sys.stdout.write(f"made: {', '.join(made)}\n" if made else "all there\n")


def make(root: Path, give: Callable[[Path, int, int], None]) -> list[str]:
    """Make the secrets that are missing; each file appears whole or not at all, also after a power cut.

    :param give: makes a file somebody's, as ``os.chown`` does.
    :returns: the files that were made, relative to ``root``.
    """
    made: list[str] = []

    def kept(name: str, uid: int, mode: int, text: Callable[[], str]) -> str:
        path = root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            DurableWriter().write_many([(temporary, [text().encode()])])  # a key that a power cut emptied would be kept for ever
            temporary.chmod(mode)
            give(temporary, uid, uid)
            temporary.replace(path)
            sync_folder(path.parent)
            made.append(name)
        return path.read_text()

    kept("mongodb/key", _MONGODB_UID, 0o400, _random)
    kept("mongodb/administrator", _MONGODB_UID, 0o400, _random)
    kept("app/mongodb_url", _APP_UID, 0o400, lambda: f"mongodb://shelfsight:{_random()}@mongodb:27017/?replicaSet=shelfsight&authSource=admin")
    url = kept("app/redis_url", _APP_UID, 0o400, lambda: f"redis://:{_random()}@redis:6379/0")
    password = url.removeprefix("redis://:").partition("@")[0]
    # Redis' user has another number in every image; nobody but Redis and this program sees the volume.
    kept("redis/redis.conf", 0, 0o444, lambda: f"requirepass {password}\n")
    return made


def _random() -> str:
    return secrets.token_hex(_BYTES)


if __name__ == "__main__":
    main()
