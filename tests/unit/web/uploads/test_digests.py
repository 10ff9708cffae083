"""The digests of files are right and in order, whichever thread computes them."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from web.uploads import digests
from web.uploads.digests import FileDigests

Submit = Callable[[Callable[[], None]], Future[None]]
FILES = [random.Random(number).randbytes(1000 + number) for number in range(40)]
EXPECTED = [hashlib.sha256(file).hexdigest() for file in FILES]


@pytest.fixture
def submit() -> Iterator[Submit]:
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit


@pytest.fixture(params=[1, 10_000, 1 << 20], ids=["thread", "thread after ten files", "no thread"], autouse=True)
def min_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_MIN_BYTES", request.param)


@pytest.mark.parametrize("added", [0, 1, 20, 40])
def test_files_are_in_the_requested_order_whether_they_were_added_or_not(submit: Submit, added: int) -> None:
    with FileDigests(submit) as file_digests:
        for file in FILES[:added]:
            file_digests.add(file)
        assert file_digests.compute(FILES[::-1]) == EXPECTED[::-1]
        assert file_digests.compute([]) == []


def test_files_that_are_not_requested_have_no_effect(submit: Submit) -> None:
    with FileDigests(submit) as file_digests:
        for file in FILES:
            file_digests.add(file)
        assert file_digests.compute(FILES[::3]) == EXPECTED[::3]


def test_after_clearing_other_files_can_be_added(submit: Submit) -> None:
    with FileDigests(submit) as file_digests:
        for number in range(100):
            file_digests.add(bytes([number]) * 5000)  # Python gives the next file the same id if this one was deleted
            file_digests.clear()
        assert file_digests.compute(FILES) == EXPECTED


def test_the_request_thread_computes_everything_if_the_other_one_never_begins(submit: Submit) -> None:
    free = threading.Event()
    busy = submit(lambda: void(free.wait(60)))
    with FileDigests(submit) as file_digests:
        for file in FILES:
            file_digests.add(file)
        assert file_digests.compute(FILES) == EXPECTED
        assert not busy.done()
    free.set()


def void(_: object) -> None:
    """Discard a value."""
