"""The command that rotates the signing keys, and what ``list`` shows of them."""

import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError

from scripts.administration import changes
from scripts.administration.database import (
    CommandFailed,
    data_option,
    find_installation,
    named_folder,
    opened_database,
    reported_errors,
)
from scripts.administration.output import json_option, print_json
from shared.accounts import receipt_keys, sessions, signing_key_file
from shared.accounts.signing_key_file import CannotRotate, Rotation
from shared.accounts.signing_keys import SigningKeyFile, SigningKeys, open_signing_keys
from shared.errors import ShelfsightError
from shared.settings import Access

_MANUAL: Final = (
    "The signing keys are in the setting SIGNING_KEYS, which this command cannot change. Add a new key after the others there, and restart all processes; "
    "then move it to the front, and restart them again; remove the old keys 30 days later."
)
_DROP: Final = "All sessions and all signed URLs end within seconds; everybody must sign in again. API keys stay valid."


@click.command()
@click.option("--drop-old", is_flag=True, help="Drop all old keys at once, because somebody else knows them. All sessions and signed URLs end.")
@click.option("--yes", is_flag=True, help="Do not ask before the old keys are dropped.")
@click.option("--nginx-keys", type=click.Path(path_type=Path), help="The file with the keys with which nginx checks signed URLs. Containers set it.")
@json_option
@data_option
def rotate_keys(*, drop_old: bool, yes: bool, nginx_keys: Path | None, as_json: bool) -> None:
    """Add a new key that signs tokens and the URLs of files, and remove old ones that nothing needs any more.

    All sessions and signed URLs stay valid, and no restart is needed: the processes of the service read the new key within
    seconds, and sign with it half a minute later. An old key is kept for 30 days after it has signed for the last time, because
    a session can last that long. There are at most five keys. Rotate the keys regularly, for example each quarter of a year.

    If a key may be known to somebody who should not have it, such as an operator who has left, use --drop-old: what the old
    keys have signed is refused within seconds, so all sessions and signed URLs end. API keys do not depend on the signing keys.
    The keys of receipts that are derived from the dropped keys are revoked, so the receipts that they have signed do not verify any
    more. Without --drop-old, receipts stay valid for ever.

    The keys are in the file that SIGNING_KEYS_FILE names, or else in the data folder (run/secrets/signing_keys); --data counts
    as for the other commands. The database need not run, but if it does, the rotation is recorded in the security log.
    "scripts/admin list" shows the ids of the keys. No command shows a key.

    \b
    Examples:
      scripts/admin rotate-keys
      scripts/admin --data /srv/shelfsight rotate-keys --drop-old --yes --json | jq -r .id

    \b
    The members of the JSON object:
      id        of the new key: the time of its creation in UTC
      signs_at  when it begins to sign
      kept      ids of the old keys that stay valid
      dropped   ids of those that were removed

    \b
    Exit codes:
      0  there is a new key
      1  nothing was changed: the keys are in SIGNING_KEYS, are damaged, have changed just now, or are too many
      2  the command line is wrong
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    with reported_errors():
        path = _find_file()
        if drop_old and not yes:
            _confirm()
        try:
            before = signing_key_file.read(path) if drop_old else {}
            rotation = signing_key_file.rotate(path, sessions.LIFETIME, drop_old=drop_old, url_keys=nginx_keys)
        except (CannotRotate, ValueError) as error:
            remedy = " (--drop-old)" if "drop" in str(error) else ""
            raise CommandFailed(f"{error}{remedy}") from None
        except OSError as error:
            raise CommandFailed(f"The signing keys in {path} cannot be replaced: {error.strerror}. scripts/start creates them; run this command as the user who started it.") from None
        _record(rotation, before)
        if as_json:
            print_json({"id": rotation.created, "signs_at": rotation.signs_at.replace(tzinfo=None), "kept": rotation.kept, "dropped": rotation.dropped})
        else:
            click.echo("\n".join(_describe(rotation)))


def list_keys() -> Iterator[dict[str, Any]]:
    """Return the members that ``list`` shows of the signing keys, the newest first; nothing if they are not known here."""
    keys = open_keys()
    if keys is None:
        return
    current = keys.current()
    for key_id in current.secrets:
        created = signing_key_file.created_at(key_id)
        yield {"id": key_id, "created_at": created and created.replace(tzinfo=None), "signs": key_id == current.signing_id}


def describe_key(key: dict[str, Any]) -> str:
    """Return the age of a key that ``list_keys`` has returned, and what it is used for."""
    age = "" if key["created_at"] is None else f"created {(datetime.now(UTC).replace(tzinfo=None) - key['created_at']).days} days ago, "
    return f"{age}{'signs' if key['signs'] else 'is still accepted'}"


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise CommandFailed("--drop-old ends all sessions and all signed URLs; confirm this with --yes.")
    click.confirm(f"{_DROP} Continue?", abort=True, err=True)


def _record(rotation: Rotation, compromised: Mapping[str, bytes]) -> None:
    """Revoke the receipt keys of compromised signing keys, and record the rotation in the security log.

    If there is no database, a warning says so.
    """
    try:
        with opened_database() as db:
            receipt_keys.revoke_derived(db, compromised, [key_id for key_id in rotation.dropped if key_id in compromised])
            changes.record(db, "signing_keys.rotated", f"signing_key:{rotation.created}", {"kept": rotation.kept, "dropped": rotation.dropped})
    except (click.UsageError, ValidationError, SettingsError, ShelfsightError):
        click.echo("warning: The rotation is not in the security log, because no database was found; see scripts/admin --help.", err=True)
        if compromised:
            click.echo("warning: Receipts that the dropped keys have signed are still valid; revoke their keys (scripts/admin receipt-key, revoke-receipt-key).", err=True)


def _describe(rotation: Rotation) -> list[str]:
    lines = [f"The signing key {rotation.created} was added. All processes read it within seconds, and sign with it from {rotation.signs_at:%H:%M:%S} UTC on; no restart is needed."]
    if rotation.kept:
        lines.append(f"Kept, because what they have signed can still be valid: {', '.join(rotation.kept)}.")
    if rotation.dropped:
        lines.append(f"Dropped: {', '.join(rotation.dropped)}.")
    if not rotation.kept:
        lines.append(_DROP)
    return lines


def _given() -> Access:
    """Return the settings of the keys in the environment. The modes do not matter here, so they are not checked."""
    return Access(environment="development", access="off")


def _find_file() -> Path:
    """Return the file of the signing keys.

    :raises CommandFailed: when they are in ``SIGNING_KEYS``.
    :raises click.UsageError: when the folder contains no installation.
    """
    given, folder = _given(), named_folder()
    if given.signing_keys.get_secret_value():
        raise CommandFailed(_MANUAL)
    if folder is None and given.signing_keys_file is not None:
        return given.signing_keys_file
    with find_installation(folder) as installation:
        if installation.signing_keys_file is None:
            raise CommandFailed(_MANUAL)
        return installation.signing_keys_file


def open_keys() -> SigningKeys | None:
    """Return the signing keys, found in the same way as the database; None if there are none, or they cannot be read."""
    given, folder = _given(), named_folder()
    try:
        if folder is None and (given.signing_keys.get_secret_value() or given.signing_keys_file or os.environ.get("MONGODB_URL")):
            return open_signing_keys(given)
        with find_installation(folder) as installation:
            return None if installation.signing_keys_file is None else SigningKeyFile(installation.signing_keys_file)
    except (OSError, ValueError):
        return None
