"""``python -m deploy.make_secrets``: generate the passwords of an installation on its first start and store them on volumes.

Each server, and the service, has a folder of its own on a volume of its own: ``mongodb/`` holds the key of the replica set and the
administrator's password, ``redis/`` the configuration of Redis, ``app/`` the two URLs with which the service connects.
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
"""Uid of the user ``mongodb`` in MongoDB's image. mongod refuses a key file that other users may read."""
_APP_UID: Final = 10001
_BYTES: Final = 24


def main() -> None:
    """Create the missing secrets and print their names."""
    created = create_secrets(ROOT, os.chown)
    sys.stdout.write(f"created: {', '.join(created)}\n" if created else "all secrets exist\n")


def create_secrets(root: Path, chown: Callable[[Path, int, int], None]) -> list[str]:
    """Create the missing secrets; each file is written atomically and durably.

    :param chown: sets owner and group of a file, like ``os.chown``.
    :returns: the files that were created, relative to ``root``.
    """
    created: list[str] = []

    def read_or_create(name: str, uid: int, mode: int, generate: Callable[[], str]) -> str:
        path = root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            DurableWriter().write_many([(temporary, [generate().encode()])])  # a file emptied by a power cut would be kept forever
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
    password = url.removeprefix("redis://:").partition("@")[0]
    # The uid of Redis differs between images, so the file is world-readable; only Redis and this program mount the volume.
    read_or_create("redis/redis.conf", 0, 0o444, lambda: f"requirepass {password}\n")
    return created


def _generate_password() -> str:
    return secrets.token_hex(_BYTES)


if __name__ == "__main__":
    main()
