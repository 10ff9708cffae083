"""Does a part of a job that changes the tags of many images, without a transaction that contains all of them.

In a transaction, MongoDB would need ten times as long for each image (``bulk_edits``). So a part has three steps:

1. **Plan.** A transaction, in which the worker must hold the lease, reads the images, and stores what is to change: for each
   image the revision that it has, and the ids of tags that it will get and lose (``JobChange.plan``). The counts of tags are
   increased at once by what is to be added, and are marked as open (``tag_counts.begin_part``).
2. **Write.** Each image is changed on its own, on the condition that it still has the store, the revision and the tags with
   which it was planned. The images are written in commands of at most ``_IN_COMMAND``. Before each command, the worker checks
   that it holds the lease. A command takes at most ``_COMMAND_S`` seconds, and all of them ``_WRITE_S``.
3. **Settle.** A transaction, in which the worker must hold the lease, corrects the counts by what was not changed and by what
   was removed, reduces the ``JobChange`` to the images that were changed, and advances the cursor of the job.

Images that others have changed between the first two steps are left, and stored as the ``rest`` of the job. The next parts of
the job change them in transactions of up to ``progress.MAX_REST`` images, if they still meet its conditions. So none is skipped,
and this ends.

If the worker dies or loses the lease between the steps, whoever continues the job settles the part first: it reads the
images, and leaves those that were not changed for the rest. It never repeats the old plan. If the job ends instead, because it is
cancelled or has failed too often, the sweep settles the part (``settle_ended``).

What is exact:

- An image is changed once, whatever dies, because the condition holds only for an image that the part has not changed.
- Counts are exact after each part that was settled by the worker that has begun it. While a part is open, they can be too large,
  but not too small, so a tag that is used in a store always counts as used there.
- Whether an image was changed is known from the number of changed images if all were, and otherwise from the image: its
  revision is the planned one (not changed); or it holds a tag that was added by the actor of the job at the time of the change
  (changed); or its revision is the next one, and either it has the time and the tags of the change (changed), or its tags are
  still those before the change (not changed).

What is not exact:

- In other cases, nobody can know whether the job or a person has changed the image: for example, if both were to remove the
  same tag, or if a person has removed what the job may have added before. Then the image counts as not changed: it is left
  for the rest, the undo does not restore what the job may have removed, and its counts are marked as due, so that they are
  counted again.
- After the death of a worker, all counts of the part are marked as due. A command that this worker had sent before it lost the
  lease can be executed by MongoDB afterwards, in theory: the lease is longer than the time limit of a command, unless the
  process was stopped between the check and the command. Such a late write changes only images that nobody has changed in
  between. Undoing the job does not revert it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pymongo.client_session import ClientSession

from shared import failpoints
from shared.catalog import bulk_edits
from shared.catalog.bulk_edits import Edit
from shared.errors import StoreAway
from shared.jobs import progress
from shared.jobs.claims import LEASES
from shared.jobs.progress import HeldJob, JobLost, Part, Step
from shared.jobs.records import ENDED
from shared.ledger import tag_counts
from shared.storage.mongo import Db, Document, deadline, run_transaction

_IN_COMMAND: Final = 250
_COMMAND_S: Final = 5.0
"""Leases are longer (30 s), and are renewed after a third of their time."""
_WRITE_S: Final = 20.0
"""Less than ``retired_tags.WRITERS_S``, because the ids of deleted tags may be written for this time."""
_TRANSACTION_S: Final = 12.0
"""MongoDB's own time limit for a transaction is 15 s in both deployments."""
_FIELDS: Final = {"status": 1, "revision": 1, "updated_at": 1, "tags": 1}


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """What a part is to change. ``part`` counts the images as if all edits were made."""

    part: Part
    edits: Sequence[Edit]


Plan = Callable[[ClientSession], PlannedPart | Step]
"""A function that reads the images of a part in a transaction, and plans how they change. It returns a step if the job ends
instead. It can be called more than once, because a transaction can be repeated."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The ids of the images that a part has changed, and of those of which this is not known."""

    changed: frozenset[str]
    unknown: frozenset[str]


def do(db: Db, job: HeldJob, plan: Plan) -> Step:
    """Do a part of a job, except for images that others change at the same time. These are the ``rest`` of the job then.

    :param job: a job without an open part and without a rest.
    :raises JobLost: when the worker has lost the lease. Whoever continues the job must call ``resume`` first.
    :raises StoreAway: when MongoDB does not respond, or takes too long. The same is true then.
    """

    def begin(session: ClientSession) -> tuple[Step, PlannedPart | None, Document]:
        progress.begin_part(db, session, job)
        planned = plan(session)
        if isinstance(planned, Step):
            return planned, None, {}
        if not planned.edits:
            return Step(progress.advance(db, session, job, planned.part)), None, {}
        held, change = progress.plan(db, session, job, planned.part, [edit.plan() for edit in planned.edits])
        tag_counts.begin_part(db, session, _increases(change))
        return Step(held), planned, change

    step, planned, change = run_transaction(db, begin, _TRANSACTION_S)
    if planned is None or step.job is None:
        return step
    failpoints.reach("10-bulk-part-planned")
    is_whole = _write(db, step.job, planned.edits, change)
    failpoints.reach("10-bulk-part-written")
    return Step(_settle(db, step.job, change, is_whole=is_whole))


def do_rest(db: Db, job: HeldJob, plan: Plan) -> Step:
    """Change the ``rest`` of a job, or the first images of it, in one transaction.

    :raises JobLost: when the worker has lost the lease. Then nothing was changed.
    :raises StoreAway: when MongoDB does not respond.
    """

    def write(session: ClientSession) -> Step:
        progress.begin_part(db, session, job)
        planned = plan(session)
        if isinstance(planned, Step):
            return planned
        bulk_edits.write(db, session, planned.edits, job.document["by"], planned.part.at)
        return Step(progress.advance(db, session, job, planned.part))

    return run_transaction(db, write, _TRANSACTION_S)


def resume(db: Db, job: HeldJob) -> HeldJob:
    """Settle the part of a job that was begun and not ended, if there is one, and return the job.

    :raises JobLost: when the worker has lost the lease. Then nothing was changed.
    :raises StoreAway: when MongoDB does not respond.
    """
    if job.open_change is None:
        return job
    with deadline(_COMMAND_S):
        change = db.job_changes.find_one({"_id": job.open_change})
    if change is None:
        raise RuntimeError(f"the change {job.open_change} is missing")
    return _settle(db, job, change, is_whole=False, is_resumed=True)


def settle_ended(db: Db, job_id: str) -> bool:
    """Settle the part of a job that has ended before its part has. What the part could not change is left.

    :returns: whether there was such a part.
    :raises StoreAway: when MongoDB does not respond.
    """

    def write(session: ClientSession) -> bool:
        job = db.jobs.find_one({"_id": job_id, "status": {"$in": sorted(ENDED)}}, {"open_change": 1}, session=session)
        if job is None or "open_change" not in job:
            return False
        change = db.job_changes.find_one({"_id": job["open_change"]}, session=session)
        if change is None:  # it was kept for a month
            db.jobs.update_one({"_id": job_id}, {"$unset": {"open_change": ""}}, session=session)
            return True
        verdict = _judge(db, session, change)
        _correct_counts(db, session, change, verdict, is_resumed=True)
        progress.settle_ended(db, session, job_id, change, verdict.changed)
        return True

    return run_transaction(db, write, _TRANSACTION_S)


def _write(db: Db, job: HeldJob, edits: Sequence[Edit], change: Document) -> bool:
    """Write the images, and return whether all were changed."""
    until, changed = time.monotonic() + _WRITE_S, 0
    for start in range(0, len(edits), _IN_COMMAND):
        if time.monotonic() > until:
            raise StoreAway("The database takes too long; retry later.", retry_after=5)
        if not LEASES.holds(db, job.owner, job.lease):
            raise JobLost
        with deadline(_COMMAND_S):
            changed += bulk_edits.write_unchanged(db, edits[start : start + _IN_COMMAND], change["by"], change["at"])
        failpoints.reach("10-bulk-part-partly-written")
    return changed == len(edits)


def _settle(db: Db, job: HeldJob, change: Document, *, is_whole: bool, is_resumed: bool = False) -> HeldJob:
    everything = frozenset(edit["id"] for edit in change["plan"]["edits"])

    def write(session: ClientSession) -> HeldJob:
        progress.begin_part(db, session, job)
        verdict = _Verdict(everything, frozenset()) if is_whole else _judge(db, session, change)
        _correct_counts(db, session, change, verdict, is_resumed=is_resumed)
        return progress.settle(db, session, job, change, verdict.changed, everything - verdict.changed)

    return run_transaction(db, write, _TRANSACTION_S)


def _judge(db: Db, session: ClientSession, change: Document) -> _Verdict:
    """Find out, in a transaction, which images a part has changed."""
    edits = {edit["id"]: edit for edit in change["plan"]["edits"]}
    images = {image["_id"]: image for image in db.images.find({"_id": {"$in": sorted(edits)}}, _FIELDS, session=session)}
    verdicts = {image_id: was_changed(images.get(image_id), edit, change) for image_id, edit in edits.items()}
    return _Verdict(*(frozenset(image_id for image_id, found in verdicts.items() if found is wanted) for wanted in (True, None)))


def was_changed(image: Document | None, edit: Document, change: Document) -> bool | None:
    """Return whether a part has changed an image, or None if this cannot be known.

    :param image: the image as it is now; None if it does not exist any more.
    :param edit: the element of ``JobChange.plan.edits`` that is about the image.
    :param change: the ``JobChange``.
    """
    if image is None:
        return None
    passed = (image.get("revision") or 0) - edit["revision"]
    if passed == 0:
        return False
    if any(entry["id"] in edit["plus"] and entry["by"] == change["by"] and entry["at"] == change["at"] for entry in image["tags"]):
        return True
    if passed > 1:
        return None
    held = {entry["id"] for entry in image["tags"]}
    is_deleted = image["status"] == "deleting"  # then it has lost its tags
    is_after = is_deleted or (held.issuperset(edit["plus"]) and held.isdisjoint(edit["minus"]))
    if is_after and image["updated_at"] == change["at"]:
        return True
    is_before = held.isdisjoint(edit["plus"]) if edit["plus"] else held.issuperset(edit["minus"])
    return False if is_before and not is_deleted else None


def _increases(change: Document) -> Counter[tuple[str, str]]:
    """Return by how much the counts of a planned change can increase at most, for all counts that it can change."""
    pairs: Counter[tuple[str, str]] = Counter()
    for edit in change["plan"]["edits"]:
        pairs.update(_pairs(edit, "plus"))
        for pair in _pairs(edit, "minus"):
            pairs[pair] += 0
    return pairs


def _correct_counts(db: Db, session: ClientSession, change: Document, verdict: _Verdict, *, is_resumed: bool) -> None:
    edits = change["plan"]["edits"]
    corrections: Counter[tuple[str, str]] = Counter(dict.fromkeys(_increases(change), 0))
    for edit in edits:
        corrections.subtract(_pairs(edit, "minus" if edit["id"] in verdict.changed else "plus"))
    uncertain = (edit for edit in edits if is_resumed or edit["id"] in verdict.unknown)
    due = {pair for edit in uncertain for name in ("plus", "minus") for pair in _pairs(edit, name)}
    tag_counts.end_part(db, session, corrections, due)


def _pairs(edit: Document, name: str) -> Iterable[tuple[str, str]]:
    return [(tag_id, edit["store"]) for tag_id in edit[name]]
