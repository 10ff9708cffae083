"""``scripts/status``: what it advises while the service runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.local.installation import Installation
from scripts.local.status import Status, advise
from shared.accounts import signing_key_file

KEYS_FILE = Path("run/secrets/signing_keys")
RUNNING = Status(
    running=True, starting=None, url="http://127.0.0.1:5000", processes=[], external=[], servers=[], not_ready={}, disk_free=2, disk_watermark=1,
    backlog=None, ledger=None, ledger_age_s=None, failed=None, paused={}, unbalanced=[], access="production", needs_credentials=True, has_administrator=True, advice=[],
)  # fmt: skip


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    (tmp_path / KEYS_FILE).parent.mkdir(parents=True)
    signing_key_file.create(tmp_path / KEYS_FILE)
    return Installation(tmp_path, 5000, 1, variables={"SHELFSIGHT_ENV": "production"})


def test_there_is_no_advice_without_a_problem(installation: Installation) -> None:
    assert advise(RUNNING, installation) == []


def test_a_paused_queue_and_the_batches_that_do_not_balance_are_shown(installation: Installation) -> None:
    ledger = {"received": 5, "done": 3, "failed": 0, "cancelled": 0, "pending": 0, "deleted": 0}
    status = replace(RUNNING, paused={"images": 7300.0}, ledger=ledger, unbalanced=["b1", "b2"])
    unbalanced, paused = advise(status, installation)
    assert "2 accepted images have no document (batches b1, b2)" in unbalanced
    assert paused.startswith("The queue images has been paused for 2 h")
    assert "POST /admin/queues/images/resume" in paused


@pytest.mark.parametrize("content", ["{", None], ids=["damaged", "missing"])
def test_damaged_signing_keys_are_shown(installation: Installation, content: str | None) -> None:
    path = installation.data / KEYS_FILE
    path.unlink()
    if content is not None:
        path.write_text(content)
    (sentence,) = advise(RUNNING, installation)
    assert sentence.startswith("The service goes on with the signing keys that it has read, but only until it is stopped.")
    assert str(path) in sentence


def test_signing_keys_that_other_users_can_read_are_shown(installation: Installation) -> None:
    (installation.data / KEYS_FILE).chmod(0o644)
    (sentence,) = advise(RUNNING, installation)
    assert "open to other users (mode 0644)" in sentence
