"""Remove a file whose image is done, but only if it is still the file that was uploaded."""

import os
from pathlib import Path

from scripts.client import local_files
from scripts.client.local_files import Identity
from scripts.client.watching.state import WatchedFile


class Changed(Exception):
    """The file is not the one that was uploaded, so it was not removed. The message is a sentence."""


def remove(file: WatchedFile) -> bool:
    """Remove a file.

    Its identity and its digest are compared with those of the upload, and its identity once more right before it is removed.

    :returns: whether the file does not exist any more; False if the path names another file, or another version of it.
    :raises Changed: when the bytes differ from those that were uploaded, but the modification time does not.
    :raises OSError: when it cannot be read or removed.
    """
    try:
        identity, digest = local_files.digest(Path(file.path), follow_links=False)
        if identity != file.identity:
            return False
        if digest != file.sha256:
            raise Changed("The bytes of the file were changed after it was uploaded, although its modification time was not, so it is not removed.")
        if Identity.of(os.lstat(file.path)) != file.identity:
            return False
        Path(file.path).unlink()
    except FileNotFoundError:
        pass
    return True
