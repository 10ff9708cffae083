"""What became of an upload, for people and for programs."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.table import Table

REJECTED, UNUSABLE, NOT_TAKEN, BUSY, NO_RESULTS, INTERRUPTED = 1, 2, 3, 4, 5, 130
"""The command's exit codes, beside 0."""
_SHOWN: Final = 20


@dataclass(slots=True)
class Summary:
    """Counts are of pictures."""

    found: int = 0
    accepted: int = 0
    skipped: int = 0
    """Answered in earlier runs."""
    rejected: list[dict[str, str]] = field(default_factory=list)
    batches: dict[str, int] = field(default_factory=dict)
    """How many pictures each batch has, by its id."""
    gave_up: str | None = None
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    """Without a result when waiting was over."""
    wait_over: str | None = None
    labels: Counter[str] = field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        if self.gave_up is not None:
            return NOT_TAKEN
        if self.wait_over is not None:
            return NO_RESULTS
        return REJECTED if self.rejected or self.failed else 0

    def count(self, batch_id: str | None, accepted: int, rejected: list[dict[str, str]]) -> None:
        """Add an answer."""
        self.accepted += accepted
        self.rejected += rejected
        if batch_id:
            self.batches[batch_id] = accepted

    def count_results(self, batch: dict[str, Any]) -> None:
        """Add a batch with what was found on its pictures so far."""
        for image in batch["images"]:
            if image["status"] == "done":
                self.done += 1
                self.labels.update({found["label"] for found in image["detections"]})
            elif image["status"] in {"queued", "processing"}:
                self.waiting += 1
            else:
                self.failed[(image["error"] or {}).get("code", image["status"])] += 1

    def show(self, console: Console, url: str, again: str, *, waited: bool) -> None:
        """Print it; ``again`` is how to go on, where that is possible."""
        for wrong in self.rejected[:_SHOWN]:
            line = f"rejected  {wrong['path']}: {wrong['code']}: {wrong['detail']}"
            console.print(line, style="red", markup=False, soft_wrap=True)
        if len(self.rejected) > _SHOWN:
            console.print(f"... and {len(self.rejected) - _SHOWN} more; --json lists all", style="red")
        table = Table(show_header=False, box=None)
        table.add_row("pictures found", str(self.found))
        earlier = f" ({self.skipped} in an earlier run)" if self.skipped else ""
        table.add_row("accepted", f"{self.accepted} in {len(self.batches)} batches{earlier}")
        table.add_row("rejected", str(len(self.rejected)))
        if waited:
            table.add_row("done", str(self.done))
            table.add_row("failed", ", ".join(f"{n} {code}" for code, n in self.failed.most_common()) or "0")
            table.add_row("seen on", ", ".join(f"{label} {n}" for label, n in self.labels.most_common(12)) or "nothing")
        console.print(table)
        for trouble in (self.gave_up and f"Not everything was taken: {self.gave_up}.", self.wait_over):
            if trouble:
                console.print(f"{trouble}{again}", style="red", markup=False, soft_wrap=True)
        for batch_id in list(self.batches)[:3]:
            console.print(f"look at   {url.rstrip('/')}/batches/{batch_id}", soft_wrap=True)

    def as_json(self) -> str:
        """Give it as one JSON object."""
        names = ("found", "accepted", "skipped", "rejected", "done", "waiting", "gave_up", "wait_over", "exit_code")
        said = {name: getattr(self, name) for name in names}
        return json.dumps(said | {"batches": list(self.batches), "failed": dict(self.failed), "labels": dict(self.labels)})
