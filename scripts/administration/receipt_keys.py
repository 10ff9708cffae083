"""The commands for the keys with which the receipts of batches are signed."""

import sys
from typing import Any, Final

import click

from scripts.administration import changes, key_rotation
from scripts.administration.database import CommandFailed, with_database
from scripts.administration.output import json_option, print_columns, print_json_lists
from shared.accounts import receipt_keys
from shared.accounts.receipt_keys import StoredKey
from shared.storage.mongo import Db

_IN_USE: Final = (
    "This key signs receipts now, and no receipt can be made after it was revoked. Run scripts/admin rotate-keys --drop-old first, which revokes this key, too; "
    "if the signing keys are in the setting SIGNING_KEYS, replace the first one there, and restart all processes. With --force, the key is revoked nevertheless."
)


@click.command()
@click.argument("key_id", required=False)
@json_option
@with_database
def receipt_key(db: Db, *, key_id: str | None, as_json: bool) -> None:
    """Print the keys of receipts, or only the one with the id KEY_ID, as an auditor needs them to verify receipts offline.

    A receipt names its key (signature.key_id); docs/receipts.md has a program that verifies it. Whoever has a key can also make
    receipts that verify, so give it only to people who need not be convinced by one: an HMAC key is a shared secret. The
    security log records that the keys were shown.

    \b
    Examples:
      scripts/admin receipt-key
      scripts/admin receipt-key 20261130T150455Z-0f1e2d3c4b5a6978 --json | jq -r '.receipt_keys[0].key'

    \b
    The members of each element of "receipt_keys" in the JSON object:
      id           as in the receipts
      key          64 hexadecimal digits: the 32 bytes of the key
      signing_key  id of the signing key from which it is derived; null if it was generated
      created_at   when it was used for the first time
      revoked_at   when it was revoked; null while it is valid

    \b
    Exit codes:
      0  the keys were printed
      1  there is no such key, or no receipt has been signed yet
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    keys = list(receipt_keys.list_keys(db, key_id))
    if not keys:
        raise CommandFailed("There is no receipt key yet; it is made with the first receipt (GET /image_batches/<id>/receipt).")
    changes.record(db, "receipt_key.shown", f"receipt_key:{key_id or '*'}", {"keys": len(keys)})
    if as_json:
        print_json_lists({"receipt_keys": map(_members, keys)})
    else:
        for key in keys:
            print_columns(key.key.id, key.key.secret.hex(), "revoked" if key.revoked_at is not None else "")


@click.command()
@click.argument("key_id")
@click.option("--yes", is_flag=True, help="Do not ask before the key is revoked.")
@click.option("--force", is_flag=True, help="Revoke also the key that signs receipts now. None can be made until its signing key has been replaced.")
@with_database
def revoke_receipt_key(db: Db, *, key_id: str, yes: bool, force: bool) -> None:
    """Revoke a key of receipts, because somebody may have forged receipts with it. This cannot be undone.

    The receipts that it has signed do not verify any more; get new ones of the batches that still exist. A key that signs receipts
    now is not revoked, because no receipt could be made any more. Replace its signing key first: scripts/admin rotate-keys
    --drop-old revokes the receipt keys of the dropped keys by itself.

    \b
    Exit codes:
      0  the key is revoked
      1  there is no such key, or it signs receipts now
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    keys = key_rotation.open_keys()
    if not force and keys is not None and receipt_keys.is_in_use(keys.current(), key_id):
        raise CommandFailed(_IN_USE)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandFailed("The receipts that the key has signed will not verify any more; confirm this with --yes.")
        click.confirm("The receipts that the key has signed will not verify any more. Continue?", abort=True, err=True)
    receipt_keys.revoke(db, key_id)
    changes.record(db, "receipt_key.revoked", f"receipt_key:{key_id}")
    click.echo(f"The receipt key {key_id} is revoked.")


def _members(stored: StoredKey) -> dict[str, Any]:
    return {
        "id": stored.key.id,
        "key": stored.key.secret.hex(),
        "signing_key": stored.signing_key,
        "created_at": stored.created_at,
        "revoked_at": stored.revoked_at,
    }
