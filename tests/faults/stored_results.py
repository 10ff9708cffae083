"""What MongoDB's operation log and the blob store say about the results of images: each attempt has one, and no other files exist."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.ids import batch_of
from shared.ledger.shown_results import shown_fence
from shared.storage.blob_keys import FILES, SPOOL, image_prefix
from tests.faults.services import HARD_LIMIT_S, LEASE_S, FaultStack

_CLEANED_WITHIN_S: Final = 120.0 + HARD_LIMIT_S + LEASE_S
_ENDED: Final = {"done", "failed", "cancelled"}


@dataclass
class Attempts:
    """What happened to images, by the operation log.

    ``doubled`` are images that ended twice without having been queued again in between, ``early`` those that were queued again
    before they had ended, and ``ended`` those that ended at least once.
    """

    doubled: set[str] = field(default_factory=set)
    early: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    queued_again: int = 0


def read_attempts(stack: FaultStack) -> Attempts:
    """Read all changes of images, in the order in which they happened."""
    attempts = Attempts()
    waiting: dict[str, bool] = {}
    with stack.connect_as_member() as client:
        query = {"ns": f"{stack.db.name}.images", "op": "u"}
        for entry in client["local"]["oplog.rs"].find(query, {"o": 1, "o2": 1}).sort("$natural", 1):
            diff = entry["o"].get("diff", {})
            name, changed = str(entry["o2"]["_id"]), diff.get("u", {}) | diff.get("i", {})
            work = diff.get("swork", {})
            if "generation" in work.get("u", {}) | work.get("i", {}):
                attempts.queued_again += 1
                if waiting.get(name, True):
                    attempts.early.add(name)
                waiting[name] = True
            elif changed.get("status") in _ENDED:
                if not waiting.get(name, True):
                    attempts.doubled.add(name)
                waiting[name] = False
                attempts.ended.add(name)
    return attempts


def wait_until_cleaned(stack: FaultStack) -> str:
    """Wait until the sweep has settled all spools and deleted all old files. Return what is left, or an empty text."""
    deadline = time.monotonic() + _CLEANED_WITHIN_S
    while left := stack.db.batches.count_documents({"$or": [{"spooled": True}, {"unswept": True}, {"reprocessing": {"$exists": True}}, {"cancelling": True}]}):
        if time.monotonic() > deadline:
            return f"{left} batches are not settled or cleaned after {_CLEANED_WITHIN_S:.0f} s"
        time.sleep(0.5)
    return ""


def find_wrong_files(stack: FaultStack, batch_ids: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with the files in the blob store, after the last clean-up: what is not explained, and what is missing.

    :param batch_ids: the accepted batches.
    """
    root, known = stack.blobs_root, set(batch_ids)
    for spool in (root / SPOOL).glob("*"):
        if spool.name in known:
            yield f"{spool.name}: its spool is left"
    images = {image["_id"]: image for image in stack.db.images.find({}, {"status": 1, "shown": 1, "work.fence": 1, "work.ext": 1})}
    for image in images.values():
        yield from _find_wrong_folders(root / image_prefix(image["_id"]), image)
    for path in sorted((root / FILES).glob("*/*/*")):
        name = path.parent.name + path.name.split(".")[0]
        if name not in images or batch_of(name) not in known or (path.is_file() and path.suffix != f".{images[name]['work']['ext']}"):
            yield f"{path.relative_to(root)}: a file of no image"


def _find_wrong_folders(folder: Path, image: dict[str, Any]) -> Iterator[str]:
    fence = shown_fence(image)
    shown = None if fence is None else str(fence)
    found = {path.name for path in folder.glob("*") if path.is_dir() and not path.is_symlink()}
    if found != ({shown} if shown else set()):
        yield f"{image['_id']}: it has the files of the fences {sorted(found)}, but shows {shown}"
    link = folder / "live"
    if shown and (not link.is_symlink() or link.readlink().name != shown):
        yield f"{image['_id']}: the files of {link.readlink() if link.is_symlink() else None} are published, but it shows {shown}"
    original = folder.parent / f"{folder.name}.{image['work']['ext']}"
    if not original.is_file():
        yield f"{image['_id']}: its original is missing"
