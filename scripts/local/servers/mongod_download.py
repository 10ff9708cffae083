"""The makers' mongod: downloaded once for each user, and used only if its digest is the one that is known here."""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from scripts.local.servers.errors import Unusable
from scripts.local.servers.progress import Progress

_VARIABLE: Final = "MONGOD_DOWNLOAD"
_MAKERS: Final = "https://fastdl.mongodb.org/linux"
_WAIT_S: Final = 900.0
"""Time limit in seconds for a download by another process."""
_RETRY_S: Final = 600
_MAX_MONGOD: Final = 1 << 30
_MAX_MEMBERS: Final = 1000
_CHUNK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of the makers. ``sha256`` is the digest of the whole archive."""

    version: str
    target: str
    sha256: str

    @property
    def name(self) -> str:
        """The name of the archive without its ending, which is also the name of the folder in it."""
        return f"mongodb-linux-{self.target}-{self.version}"


# Each digest of an archive for x86_64 was found in two public files in different languages, and that for aarch64 in one
# of them, whose other digests agree with those of further files. No digest of 7.0 for aarch64 was found.
_ARCHIVES: Final = {
    ("8.0", "x86_64"): Archive("8.0.32", "x86_64-ubuntu2204", "41da8d92dde2896ebda278cf296ae86462da6b39eda81ce6ce4fb9ce819adb2e"),
    ("8.0", "aarch64"): Archive("8.0.32", "aarch64-ubuntu2204", "7411bc9efef53346a26e67241ca9db9926c30b7a056e2515068223b497682c81"),
    ("7.0", "x86_64"): Archive("7.0.43", "x86_64-ubuntu2204", "cba84b47932ebcdd093de37f2fdbbbd415116d21187ccf9117568726859d6f81"),
}


def archive_of(series: str) -> Archive | None:
    """Return the archive of a series (``8.0``) for this machine; None if no digest of it is known here."""
    return _ARCHIVES.get((series, platform.machine()))


def programs_folder() -> Path:
    """Return the folder in which downloaded programs are kept, for all clones of this user.

    It is not a cache that may be emptied, because the data folders need the program on a machine without network, too.

    :raises Unusable: when the user has no home folder.
    """
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111 -- Path.home raises another error if there is none
    if not os.path.isabs(base):  # noqa: PTH117 -- the same
        raise Unusable("No program is downloaded, because this user has no home folder.")
    return Path(base) / "shelfsight"


def find_downloaded(archive: Archive, folder: Path) -> Path | None:
    """Return the mongod of an archive if it was downloaded before; None if not."""
    path = _installed_path(archive, folder)
    try:
        return path if path.is_file() else None
    except OSError:  # for example, the home folder is that of another user
        return None


def download(archive: Archive, folder: Path, show: Progress, *, retry: bool) -> Path:
    """Download an archive, and return the path of its mongod.

    If another process downloads the same archive, wait for it.

    :param retry: whether to try even if the last attempt failed within the last ten minutes.
    :raises Unusable: when it cannot be downloaded, or the downloaded archive is not the expected one.
    """
    base = os.environ.get(_VARIABLE, "").strip().rstrip("/") or _MAKERS
    if base.lower() == "off":
        raise Unusable(f"MongoDB {archive.version} is not downloaded, because {_VARIABLE} is off.")
    what = f"MongoDB {archive.version} cannot be downloaded from {_without_password(base)}"
    try:
        with _locked(folder):
            if (found := find_downloaded(archive, folder)) is not None:
                return found
            if not retry and (failed_at := _last_failure(folder, archive, base)) is not None:
                again = time.strftime("%H:%M", time.localtime(failed_at + _RETRY_S))
                raise Unusable(f"{what}: the last attempt failed, and the next is made after {again}.")
            try:
                return _fetch(archive, base, folder, show)
            except (Unusable, OSError, tarfile.TarError, EOFError, zlib.error) as error:
                _record_failure(folder, archive, base)
                raise Unusable(f"{what}: {error}") from error
    except OSError as error:
        raise Unusable(f"{what}: {error}") from error


def _fetch(archive: Archive, base: str, folder: Path, show: Progress) -> Path:
    """Download, verify and extract an archive. The mongod gets its final name when it is complete."""
    from scripts.local.servers.http_download import receive  # noqa: PLC0415 -- importing it takes a tenth of a second, and most starts download nothing

    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as name:
        file = Path(name) / "archive.tgz"
        digest = receive(f"{base}/{archive.name}.tgz", file, show)
        if digest != archive.sha256:
            raise Unusable(f"the archive has the digest {digest} instead of {archive.sha256}")
        mongod = Path(name) / "mongod"
        _extract(file, f"{archive.name}/bin/mongod", mongod)
        path = _installed_path(archive, folder)
        mongod.replace(path)
    return path


def _extract(archive: Path, member_name: str, target: Path) -> None:
    """Copy one file out of an archive. Nothing else of the archive is written, whatever it contains."""
    with tarfile.open(archive, "r:gz") as tar:
        for number, member in enumerate(tar):
            if number >= _MAX_MEMBERS:
                break
            if member.name != member_name:
                continue
            if not member.isreg() or not 0 < member.size <= _MAX_MONGOD:
                raise Unusable(f"{member_name} in the archive is not a file, or is too large")
            source = tar.extractfile(member)
            assert source is not None  # noqa: S101 -- the member is a regular file
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
                os.fsync(file.fileno())
            target.chmod(0o755)
            return
    raise Unusable(f"the archive contains no {member_name}")


def _installed_path(archive: Archive, folder: Path) -> Path:
    return folder / archive.name.replace("mongodb", "mongod", 1)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    """Create the folder of the programs, and lock out other downloads until the block ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    until = time.monotonic() + _WAIT_S
    with (folder / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Unusable(f"another process has been downloading for {_WAIT_S:.0f} s") from None
                time.sleep(0.1)  # poll, because waiting for the lock has no time limit
            else:
                break
        yield file


def _last_failure(folder: Path, archive: Archive, base: str) -> float | None:
    """Return the time of the last failed attempt if it was made within the last ten minutes."""
    try:
        saved = json.loads((folder / "failure.json").read_text())
        failed_at = float(saved["at"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    same = (saved.get("archive"), saved.get("base")) == (archive.name, base)
    return failed_at if same and 0 <= time.time() - failed_at < _RETRY_S else None


def _record_failure(folder: Path, archive: Archive, base: str) -> None:
    with contextlib.suppress(OSError):  # the disk is full
        (folder / "failure.json").write_text(json.dumps({"archive": archive.name, "base": base, "at": time.time()}))


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an invalid URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
