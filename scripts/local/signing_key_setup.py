"""The keys that sign tokens and URLs. They are generated once and kept in the folder of the passwords."""

from pathlib import Path
from typing import Final

from scripts.local.servers.errors import Unusable
from shared.accounts import signing_key_file

FILE_NAME: Final = "signing_keys"


def create_signing_keys(path: Path) -> None:
    """Generate the file of the signing keys if it does not exist, and close it to other users.

    :raises Unusable: when the file is damaged. It is not replaced, because that would end all sessions.
    :raises OSError: when it cannot be written.
    """
    if not path.exists():
        signing_key_file.create(path)
    path.chmod(0o600)
    check_signing_keys(path)


def check_signing_keys(path: Path, *, is_production: bool = False) -> None:
    """Check the file of the signing keys.

    :param is_production: whether secrets that look like examples are refused.
    :raises Unusable: when it cannot be read, or is damaged.
    """
    try:
        signing_key_file.read(path, is_production=is_production)
    except OSError as error:
        raise Unusable(f"The signing keys in {path} cannot be read: {error.strerror}. Make the file readable, or correct SIGNING_KEYS_FILE.") from error
    except ValueError as error:
        raise Unusable(f"{error} Correct the file, or remove it, so that scripts/start makes a new one; then everybody must sign in again.") from error
