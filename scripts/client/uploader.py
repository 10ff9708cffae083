"""Sending all: what was begun before first, then the pictures that no earlier run was answered about, some groups at once."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from scripts.client.groups import Picture, cut
from scripts.client.journal import Journal
from scripts.client.send_group import GaveUp, Sender


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that go in one request, under one key; ``begun`` is what an earlier run began under it."""

    key: str
    pictures: list[Picture]
    begun: list[Picture] | None = None

    @property
    def size(self) -> int:
        """Bytes of the pictures."""
        return sum(picture.size for picture in self.pictures)


@dataclass(slots=True)
class Answer:
    """What became of a group: the batch it is now, and every picture that was refused with its reason."""

    batch_id: str | None = None
    accepted: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)


def groups(pictures: list[Picture], journal: Journal, *, most: int, most_bytes: int) -> Iterator[Group]:
    """Plan what is to be sent: what earlier runs began as it was then, then what they know nothing of in new groups.

    A picture of a begun group that is gone, or another one by now, is left out of it. The key stays, so the service tells if it
    accepted the whole group back then.
    """
    begun = set()
    for key, earlier in journal.pending.items():
        begun |= {picture.identity for picture in earlier.pictures}
        still = [picture for picture in earlier.pictures if picture.is_there()]
        if still:
            yield Group(key, still, earlier.pictures)
    new = (picture for picture in pictures if picture.identity not in begun and not journal.is_answered(picture))
    for some in cut(new, most=most, most_bytes=most_bytes):
        yield Group(f"upload-{uuid.uuid4().hex}", some)


class Upload:
    """One run over many groups."""

    def __init__(self, sender: Sender, journal: Journal, stop: threading.Event, max_image_bytes: int) -> None:
        """Send with ``sender``; once ``stop`` is set no group is begun, and what is in flight comes to its end."""
        self._sender, self._journal, self._stop, self._max_bytes = sender, journal, stop, max_image_bytes
        self._running: dict[Future[Answer], Group] = {}

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._running)

    def send(self, todo: Iterator[Group], parallel: int, count: Callable[[Group, Answer], None]) -> str | None:
        """Send groups, ``parallel`` at once; ``count`` is told every answer, here in the caller's thread.

        :returns: why it gave up, or None.
        """
        trouble = None
        with ThreadPoolExecutor(parallel) as pool:
            while True:
                while not self._stop.is_set() and len(self._running) < parallel and (group := next(todo, None)) is not None:
                    self._running[pool.submit(self._one, group)] = group
                if not self._running:
                    return trouble
                finished, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in finished:
                    group = self._running.pop(future)
                    try:
                        count(group, future.result())
                    except (GaveUp, OSError) as error:
                        trouble = trouble or str(error)

    def _one(self, group: Group) -> Answer:
        """Send one group; its answer is in the journal before anybody hears of it."""
        try:
            return self._sent(group)
        except BaseException:
            # Here and not in the caller's thread: a signal's handler sets it there, and might find it half set.
            self._stop.set()
            raise

    def _sent(self, group: Group) -> Answer:
        read: list[tuple[Picture, bytes]] = []
        unread: list[dict[str, str]] = []
        for picture in group.pictures:
            try:
                read.append(self._read(picture))
            except OSError as error:
                unread.append(_refused(picture, "unreadable", error.strerror or str(error)))
            except _TooLargeError as error:
                unread.append(_refused(picture, "image_too_large", str(error)))
        if not read:
            return Answer(rejected=unread)
        pictures = [picture for picture, _ in read]
        if group.begun is None:
            self._journal.begin(group.key, pictures)
        said = self._sender.send(group.key, read)
        if group.begun is not None and said.get("code") == "idempotency_mismatch":
            answer = Answer(accepted=len(group.begun))  # the whole group was, back then
        else:
            answer = _answer(said, pictures)
            if group.begun not in (None, pictures):
                self._journal.begin(group.key, pictures)  # it is about these now
        self._journal.answer(group.key, {"batch_id": answer.batch_id, "accepted": answer.accepted, "rejected": answer.rejected})
        return replace(answer, rejected=answer.rejected + unread)

    def _read(self, picture: Picture) -> tuple[Picture, bytes]:
        """Read a picture, which is from then on what the file is now."""
        with picture.path.open("rb") as file:
            now = os.fstat(file.fileno())
            if now.st_size > self._max_bytes:  # said here, so that nothing huge is read into memory
                raise _TooLargeError(f"An image may have {self._max_bytes} bytes, this has {now.st_size}.")
            return replace(picture, size=now.st_size, mtime_ns=now.st_mtime_ns), file.read()


class _TooLargeError(Exception):
    pass


def _answer(said: dict[str, Any], pictures: list[Picture]) -> Answer:
    if "batch_id" in said and said["http"] == 202:
        bad = [(image["index"], image["errors"][0]) for image in said["images"] if image["status"] == "rejected"]
        return Answer(said["batch_id"], said["total"], [_refused(pictures[at], wrong["code"], wrong["detail"]) for at, wrong in bad])
    by_index: dict[int, dict[str, Any]] = {}
    for wrong in said.get("errors", []):
        place = wrong["pointer"].strip("/").split("/")[0]
        if place.isdigit():
            by_index.setdefault(int(place), wrong)
    everything = {"code": said.get("code", "refused"), "detail": said.get("detail", f"HTTP {said['http']}")}
    rejected = []
    for at, picture in enumerate(pictures):
        wrong = by_index.get(at, everything)
        rejected.append(_refused(picture, wrong["code"], wrong["detail"]))
    return Answer(rejected=rejected)


def _refused(picture: Picture, code: str, detail: str) -> dict[str, str]:
    return {"path": str(picture.path), "code": code, "detail": detail}
