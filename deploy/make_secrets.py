"""``python -m deploy.make_secrets``: on the first start, generate the passwords and store them on volumes.

Each server and the service itself have their own folder on their own volume: ``mongodb/`` holds the key file of the
replica set and the administrator's password, ``redis/`` holds the configuration of Redis, and ``app/`` holds the two
URLs with which the service connects to MongoDB and Redis, and the keys that sign access tokens.
"""

import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.storage.durable_files import DurableWriter, sync_folder

ROOT: Final = Path("/secrets")
_MONGODB_UID: Final = 999
"""Uid of the user ``mongodb`` in MongoDB's image. This user must own the key file, because mongod refuses
a key file that other users can read."""
_APP_UID: Final = 10001
_BYTES: Final = 24
_SIGNING_BYTES: Final = 32


def main() -> None:
    """Create the missing secrets and print their names."""
    created = create_secrets(ROOT, os.chown)
    sys.stdout.write(f"created: {', '.join(created)}\n" if created else "all secrets exist\n")


def create_secrets(root: Path, chown: Callable[[Path, int, int], None]) -> list[str]:
    """Create the missing secrets; each file is written atomically and durably.

    :param root: folder that contains the folders ``mongodb/``, ``redis/`` and ``app/``.
    :param chown: function that sets the owner and the group of a file, like ``os.chown``.
    :returns: the paths of the created files, relative to ``root``.
    """
    created: list[str] = []

    def read_or_create(name: str, uid: int, mode: int, generate: Callable[[], str]) -> str:
        path = root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            # The file must be durable, because a file that a power failure has left empty would never be generated
            # again.
            DurableWriter().write_many([(temporary, [generate().encode()])])
            temporary.chmod(mode)
            chown(temporary, uid, uid)
            temporary.replace(path)
            sync_folder(path.parent)
            created.append(name)
        return path.read_text()

    read_or_create("mongodb/key", _MONGODB_UID, 0o400, _generate_password)
    read_or_create("mongodb/administrator", _MONGODB_UID, 0o400, _generate_password)
    read_or_create("app/mongodb_url", _APP_UID, 0o400, lambda: f"mongodb://shelfsight:{_generate_password()}@mongodb:27017/?replicaSet=shelfsight&authSource=admin")
    url = read_or_create("app/redis_url", _APP_UID, 0o400, lambda: f"redis://:{_generate_password()}@redis:6379/0")
    read_or_create("app/signing_keys", _APP_UID, 0o400, lambda: json.dumps({"1": secrets.token_hex(_SIGNING_BYTES)}))
    password = url.removeprefix("redis://:").partition("@")[0]
    # The uid of Redis differs between versions of its image, so every user can read this file. This is safe, because
    # only the containers of Redis and of this program mount the volume.
    read_or_create("redis/redis.conf", 0, 0o444, lambda: f"requirepass {password}\n")
    return created


def _generate_password() -> str:
    return secrets.token_hex(_BYTES)


if __name__ == "__main__":
    main()
