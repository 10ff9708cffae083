"""The result of an upload, as text and as JSON."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

REJECTED, USAGE_ERROR, NOT_ACCEPTED, ALREADY_RUNNING, RESULTS_MISSING, INTERRUPTED = 1, 2, 3, 4, 5, 130
"""The exit codes of the command, except 0."""
_MAX_SHOWN: Final = 20


@dataclass(slots=True)
class Summary:
    """The result of an upload; attributes of type ``int`` count images."""

    found: int = 0
    accepted: int = 0
    skipped: int = 0
    """Images that earlier runs sent and for which they received a response."""
    rejected: list[dict[str, str]] = field(default_factory=list)
    unread: list[dict[str, str]] = field(default_factory=list)
    """The files and folders that could not be read: their ``path``, and the reason in ``detail``."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Numbers of the files and folders that were left out, by what they are."""
    batches: dict[str, int] = field(default_factory=dict)
    """Number of images in each batch, by batch id."""
    gave_up: str | None = None
    """Why some images were not sent; None if all images were sent."""
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Number of failed images, by error code."""
    waiting: int = 0
    """Images that had no result when the wait ended."""
    wait_over: str | None = None
    """Why the wait ended before all results had arrived; None if all results arrived."""
    verified: int = 0
    """Images whose receipt says that they are done, with the digest of the local file."""
    problems: list[dict[str, str]] = field(default_factory=list)
    """What ``--verify`` has found: ``path``, ``batch_id``, ``code`` and ``detail``."""
    verify_over: str | None = None
    """Why not all images were verified; None if all were, or none were to be."""
    labels: Counter[str] = field(default_factory=Counter)
    """Number of images in which each label was detected, by label."""

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        if self.gave_up is not None:
            return NOT_ACCEPTED
        if self.wait_over is not None or self.verify_over is not None:
            return RESULTS_MISSING
        return REJECTED if self.rejected or self.failed or self.unread or self.problems else 0

    def add_group(self, batch_id: str | None, accepted: int, rejected: list[dict[str, str]]) -> None:
        """Add the result of sending one group: its batch id, the number of accepted images, and the rejected images."""
        self.accepted += accepted
        self.rejected += rejected
        if batch_id:
            self.batches[batch_id] = accepted

    def add_batch(self, batch: dict[str, Any]) -> None:
        """Count the images of a batch by result, and count the detected labels.

        An image without a result, in a batch that is unfinished, counts as waiting.
        """
        for image in batch["images"]:
            if image["status"] == "done":
                self.done += 1
                self.labels.update({detection["label"] for detection in image["detections"]})
            elif image["status"] in {"queued", "processing"}:
                self.waiting += 1
            else:
                self.failed[(image["error"] or {}).get("code", image["status"])] += 1

    def show(self, console: Console, url: str, how_to_resume: str, *, waited: bool, verified: bool) -> None:
        """Print the summary.

        :param how_to_resume: a sentence that is appended to each message about an incomplete upload or wait; empty if
            the upload cannot be resumed.
        :param waited: whether the upload waited for the results.
        :param verified: whether it has compared the receipts with the files.
        """
        lines = [f"rejected  {image['path']}: {image['code']}: {image['detail']}" for image in self.rejected]
        _show_some(console, lines)
        _show_some(console, [f"not read  {unread['path']}: {unread['detail']}" for unread in self.unread])
        _show_some(console, [f"{problem['code']}  {problem['path'] or 'batch ' + problem['batch_id']}: {problem['detail']}" for problem in self.problems])
        table = Table(show_header=False, box=None)
        table.add_row("images found", str(self.found))
        earlier = f" ({self.skipped} answered in an earlier run)" if self.skipped else ""
        table.add_row("accepted", f"{self.accepted} in {counted(len(self.batches), 'batch', 'batches')}{earlier}")
        table.add_row("rejected", str(len(self.rejected)))
        if self.unread:
            table.add_row("not read", counted(len(self.unread), "file or folder", "files or folders"))
        if self.left_out:
            table.add_row("left out", Text(describe(self.left_out)))
        if waited:
            table.add_row("done", str(self.done))
            table.add_row("failed", ", ".join(f"{n} {code}" for code, n in self.failed.most_common()) or "0")
            detected = ", ".join(f"{label} {n}" for label, n in self.labels.most_common(12)) or "nothing"
            table.add_row("detected", Text(escape(detected)))
        if verified:
            codes = Counter(problem["code"] for problem in self.problems)
            table.add_row("verified", str(self.verified))
            table.add_row("problems", ", ".join(f"{n} {code}" for code, n in codes.most_common()) or "0")
        console.print(table)
        for problem in (self.gave_up and f"Not all images were accepted: {self.gave_up}.", self.wait_over, self.verify_over):
            if problem:
                console.print(f"{escape(problem)}{how_to_resume}", style="red", markup=False, soft_wrap=True)
        for batch_id in list(self.batches)[:3]:
            console.print(f"batch     {url.rstrip('/')}/batches/{batch_id}", soft_wrap=True)

    def as_json(self) -> str:
        """Return the summary as one JSON object."""
        names = ("found", "accepted", "skipped", "rejected", "unread", "left_out", "done", "waiting", "verified", "problems", "gave_up", "wait_over", "verify_over", "exit_code")
        values = {name: getattr(self, name) for name in names}
        return json.dumps(values | {"batches": list(self.batches), "failed": dict(self.failed), "labels": dict(self.labels)})


def counted(number: int, one: str, many: str) -> str:
    """Return a number with the words that follow it: ``one`` after 1, else ``many``."""
    return f"{number} {one if number == 1 else many}"


def describe(left_out: "Counter[str]") -> str:
    """Return the numbers of what was left out as text, the largest first."""
    shown = [f"{number} {escape(kind)}" for kind, number in left_out.most_common(_MAX_SHOWN)]
    return ", ".join([*shown, "..."] if len(left_out) > _MAX_SHOWN else shown)


def escape(text: str) -> str:
    """Return a text in which line ends and control characters are escapes, because file names may contain them."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)


def _show_some(console: Console, lines: list[str]) -> None:
    for line in lines[:_MAX_SHOWN]:
        console.print(escape(line), style="red", markup=False, soft_wrap=True)
    if len(lines) > _MAX_SHOWN:
        console.print(f"... and {len(lines) - _MAX_SHOWN} more; --json lists all", style="red")
