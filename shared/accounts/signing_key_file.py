"""The file of the signing keys: how it is made, and how its keys are replaced while the service runs.

The file contains a value of the setting ``SIGNING_KEYS``: a JSON object of ids and secrets, the newest key first. The id of
a generated key is the time of its creation in UTC, such as ``20261130T150455Z``. ``shared.accounts.signing_keys`` describes
when the processes read the file, and which key signs.

This module needs neither a database nor the web front, so that the containers can use it before either runs.
"""

import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from shared.accounts.signed_urls import PURPOSE
from shared.accounts.signing_keys import SIGNS_AFTER_S, KeySet
from shared.settings.access import parse_signing_keys
from shared.storage.durable_files import sync_folder

MAX_KEYS: Final = 5
_ID_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_SECRET_BYTES: Final = 32
_LOCK_CHECK_S: Final = 0.05
_MARGIN: Final = timedelta(hours=1)
"""How much longer a key is kept than what it has signed can be valid, because the clocks of machines differ."""


class CannotRotate(Exception):
    """The keys cannot be replaced now. The message is a sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation has changed: the id of the new key, and those of the older ones that were kept and dropped.

    ``signs_at`` is the time (UTC) at which the new key begins to sign.
    """

    created: str
    signs_at: datetime
    kept: tuple[str, ...]
    dropped: tuple[str, ...]


def generate(now: datetime | None = None) -> str:
    """Return the content of a file with one new key.

    :param now: the time of its creation (UTC); by default the present time.
    """
    return _dump({_new_id(now or datetime.now(UTC), ()): _new_secret()})


def create(path: Path) -> None:
    """Write a file with one new key that only its owner can read, atomically and durably.

    :raises OSError: when the file cannot be written.
    """
    _write(path, generate(), None)


def read(path: Path, *, is_production: bool = False) -> dict[str, bytes]:
    """Return the secrets in a file by the ids of their keys, the newest first.

    :param is_production: whether secrets that look like examples are refused.
    :raises OSError: when the file cannot be read.
    :raises ValueError: when its content is not a value of the setting ``SIGNING_KEYS``. The message contains no secret.
    """
    try:
        return parse_signing_keys(path.read_text(), is_production=is_production)
    except ValueError as error:
        reason = "It is not a text in UTF-8." if isinstance(error, UnicodeDecodeError) else str(error)
        raise ValueError(f"The signing keys in {path} are damaged: {reason}") from None


def describe_exposure(path: Path) -> str | None:
    """Return a sentence about a file that its group or everybody can read; None if only its owner can.

    :raises OSError: when the file cannot be found.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return None
    return (
        f"The signing keys in {path} are open to other users (mode {mode:04o}), and who reads them can act as any person. Run chmod 600 on the file, "
        "as the user of the web front (in containers, its owner is 10001)."
    )


def created_at(key_id: str) -> datetime | None:
    """Return when a key was created (UTC); None if its id does not say it."""
    try:
        return datetime.strptime(key_id, _ID_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def dump_url_keys(keys: Mapping[str, bytes]) -> str:
    """Return the content of the file with which nginx checks signed URLs: a JSON object of ids and derived keys.

    :param keys: the secrets by the ids of their keys.
    """
    return json.dumps({key_id: key.decode() for key_id, key in KeySet(keys, None).derive(PURPOSE).items()})


def rotate(path: Path, lifetime: timedelta, *, drop_old: bool = False, url_keys: Path | None = None, now: datetime | None = None) -> Rotation:
    """Put a new key before the others, atomically and durably. The owner and the mode of the file stay.

    A key is dropped when another one has signed in its place for longer than ``lifetime``.

    nginx gets its keys first. So if this is interrupted, nginx has no key that the web processes do not accept, except a new
    one that has signed nothing, and the next call does all of it. nginx leaves signatures of keys that it has not got to the web processes.

    :param lifetime: how long at most something is valid that a key has signed.
    :param drop_old: drop all other keys at once, so that everything that they have signed becomes invalid.
    :param url_keys: the file with which nginx checks signed URLs (``dump_url_keys``), if there is one. Before anything else, it
        is brought up to date, even if the keys cannot be replaced.
    :param now: the present time (UTC).
    :raises CannotRotate: when another process changes the file, the newest key does not sign yet, or too many keys would
        have to be kept.
    :raises OSError: when the file cannot be read or written.
    :raises ValueError: when its content is not a value of the setting ``SIGNING_KEYS``.
    """
    now = now or datetime.now(UTC)
    path = path.resolve()  # the file that a link names is replaced, and the link stays
    with locked(path.parent):
        found, keys = path.stat(), read(path)
        if url_keys is not None:
            _write_url_keys(url_keys, keys, found)
        wait_s = SIGNS_AFTER_S - (now.timestamp() - found.st_mtime)
        if 0 < wait_s <= 2 * SIGNS_AFTER_S and not drop_old:  # a time far in the future is wrong, and would last too long
            raise CannotRotate(f"The signing keys have changed just now, and the newest one does not sign yet; try again in {int(wait_s) + 1} s.")
        ends = _find_ends(list(keys), now, lifetime)
        kept = [] if drop_old else [key_id for key_id, end in ends.items() if end is None or end > now]
        if len(kept) >= MAX_KEYS:
            known = [end for key_id, end in ends.items() if end is not None and key_id in kept[1:]]  # that of the first one moves on
            until = f"wait until {min(known):%Y-%m-%d %H:%M} UTC, when the next of them ends, or drop" if known else "drop"
            raise CannotRotate(f"There are {len(kept)} signing keys whose signatures can still be valid, and {MAX_KEYS} keys are allowed; {until} all old keys, which ends all sessions.")
        created = _new_id(now, keys)
        replaced = {created: _new_secret().encode()} | {key_id: keys[key_id] for key_id in kept}
        if url_keys is not None:
            _write_url_keys(url_keys, replaced, found)
        _write(path, _dump({key_id: secret.decode() for key_id, secret in replaced.items()}), found)
    signs_at = now + timedelta(seconds=SIGNS_AFTER_S) if kept else now
    return Rotation(created, signs_at, tuple(kept), tuple(key_id for key_id in keys if key_id not in kept))


def _find_ends(key_ids: list[str], now: datetime, lifetime: timedelta) -> dict[str, datetime | None]:
    """Return, for each key, when the last thing that it has signed becomes invalid if a new key is added now.

    It signs until the key before it does. The end is None if the id of the key before it does not say since when.
    """
    since = [now, *(created_at(key_id) for key_id in key_ids[:-1])]
    longest = timedelta(seconds=SIGNS_AFTER_S) + lifetime + _MARGIN
    return {key_id: None if superseded is None else superseded + longest for key_id, superseded in zip(key_ids, since, strict=True)}


def _new_id(now: datetime, used: "dict[str, bytes] | tuple[()]") -> str:
    while (key_id := now.strftime(_ID_FORMAT)) in used:  # at most ``MAX_KEYS`` times
        now += timedelta(seconds=1)
    return key_id


def _new_secret() -> str:
    return secrets.token_hex(_SECRET_BYTES)


def _dump(keys: dict[str, str]) -> str:
    return json.dumps(keys) + "\n"


@contextmanager
def locked(folder: Path, wait_s: float = 0) -> Iterator[None]:
    """Keep other processes from replacing the keys in a folder, or those of nginx, at the same time. The lock leaves no file behind.

    :param wait_s: how many seconds to wait for another process that holds the lock.
    :raises CannotRotate: when another process still holds the lock then.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise CannotRotate("Another process is replacing the signing keys at this moment; try again.") from None
                time.sleep(_LOCK_CHECK_S)
        yield
    finally:
        os.close(handle)


def _write_url_keys(path: Path, keys: Mapping[str, bytes], like: os.stat_result) -> None:
    """Write the keys of signed URLs for nginx, unless the file contains them already."""
    text = dump_url_keys(keys)
    if not path.exists() or path.read_text() != text:
        _write(path, text, like)


def _write(path: Path, text: str, like: os.stat_result | None) -> None:
    """Replace a file atomically and durably.

    :param like: the owner and the mode of the new file; by default, the user of this process and mode 0600.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # a file left behind by a crash may have another mode
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        if like is not None:
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))  # while the file still belongs to the user of this process
            made = os.fstat(file.fileno())
            if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
