"""The state of a batch follows from the states of its images; retry delays grow up to a limit."""

from hypothesis import given
from hypothesis import strategies as st

from shared.states import CLOSED, TERMINAL, BatchState, ImageState, batch_state, retry_delay_s

COUNTS = st.fixed_dictionaries({state.value: st.integers(0, 5) for state in ImageState})


@given(COUNTS)
def test_a_batch_is_closed_exactly_when_all_its_images_are_terminal(counts: dict[str, int]) -> None:
    total = sum(counts.values())
    if not total:
        return
    unfinished = counts["queued"] + counts["processing"]
    assert (batch_state(counts, total) in CLOSED) == (not unfinished)


@given(COUNTS)
def test_a_cancelled_image_makes_a_finished_batch_cancelled(counts: dict[str, int]) -> None:
    counts |= {"queued": 0, "processing": 0, "cancelled": counts["cancelled"] + 1}
    assert batch_state(counts, sum(counts.values())) == BatchState.CANCELLED


def test_each_state_of_a_batch() -> None:
    assert batch_state({"queued": 2}, 2) == BatchState.QUEUED
    assert batch_state({"queued": 1, "done": 1}, 2) == BatchState.PROCESSING
    assert batch_state({"processing": 1}, 1) == BatchState.PROCESSING
    assert batch_state({"done": 2}, 2) == BatchState.DONE
    assert batch_state({"done": 1, "failed": 1}, 2) == BatchState.PARTIAL
    assert batch_state({"failed": 2}, 2) == BatchState.FAILED


def test_the_terminal_states() -> None:
    assert {ImageState.DONE, ImageState.FAILED, ImageState.CANCELLED} == TERMINAL


@given(st.integers(0, 10_000))
def test_the_delay_after_a_release_grows_up_to_a_limit(releases: int) -> None:
    assert 1 <= retry_delay_s(releases) <= retry_delay_s(releases + 1) <= 30
