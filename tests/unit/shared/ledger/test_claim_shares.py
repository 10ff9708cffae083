"""How accounts, priorities and stores share a claim, for any images that wait."""

import math
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.ledger.claim_shares import Candidate, Choice, choose
from shared.ledger.turns import AccountTurn, StoreTurn, Turn
from shared.priorities import PRIORITIES

LISTED = 16
MEGABYTE = 1_000_000


@dataclass
class Rotation:
    """The images that wait, by turn, and the accounts and the stores in the order in which they are served."""

    images: dict[Turn, list[Candidate]]
    accounts: list[str]
    stores: list[Turn]

    def choose(self, size: int, max_bytes: int = 1000 * MEGABYTE, listed: int = LISTED) -> Choice:
        waiting = [AccountTurn(account, 1, self._stores_of(account)[:listed]) for account in self.accounts[:listed]]
        return choose(waiting, lambda turn, limit: self.images[turn][:limit], size, max_bytes, listed=listed)

    def serve(self, choice: Choice) -> list[Turn]:
        """Remove the chosen images, move what was served to the end, and return the turn of each image."""
        chosen = set(choice.images)
        served = [turn for turn, images in self.images.items() for image in images if image.id in chosen]
        for turn, images in self.images.items():
            self.images[turn] = [image for image in images if image.id not in chosen]
        idle_accounts = [account.id for account in choice.idle_accounts]
        idle_stores = [store.turn for store in choice.idle_stores]
        for order, moved in ((self.accounts, idle_accounts + choice.served_accounts), (self.stores, idle_stores + choice.served_stores)):
            for item in moved:
                order.remove(item)  # type: ignore[arg-type]
                order.append(item)  # type: ignore[arg-type]
        return served

    def _stores_of(self, account: str) -> tuple[StoreTurn, ...]:
        return tuple(StoreTurn(turn, 1) for turn in sorted(self.stores, key=lambda turn: turn.rank) if turn.account == account)


@st.composite
def rotations(draw: st.DrawFn, *, solo: bool = True, max_accounts: int = 5, max_bytes: int = 5 * MEGABYTE) -> Rotation:
    accounts = [f"user:{number}" for number in range(draw(st.integers(1, max_accounts)))]
    found: dict[Turn, list[Candidate]] = {}
    for account in accounts:
        for store in range(draw(st.integers(0, 4))):
            for priority in draw(st.lists(st.sampled_from(PRIORITIES), min_size=1, max_size=3, unique=True)):
                turn = Turn(account, priority, f"store {store}")
                rows = draw(st.lists(st.tuples(st.integers(1, max_bytes), st.booleans() if solo else st.just(value=False)), max_size=12))
                found[turn] = [Candidate(f"{turn.id}/{number}", *row) for number, row in enumerate(rows)]
    return Rotation(found, accounts, draw(st.permutations(list(found))))


SIZES = st.integers(1, 24)
BYTES = st.integers(1, 12 * MEGABYTE)


def stores_of(rotation: Rotation, choice: Choice) -> list[Turn]:
    """Return the turns of the chosen images."""
    return [turn for turn, images in rotation.images.items() if any(image.id in choice.images for image in images)]


def left_of(rotation: Rotation, choice: Choice) -> dict[Turn, list[Candidate]]:
    """Return the images that are not chosen and need not be alone, by turn."""
    chosen = set(choice.images)
    return {turn: [image for image in images if image.id not in chosen and not image.solo] for turn, images in rotation.images.items()}


@given(rotations(), SIZES, BYTES, st.integers(1, 16))
def test_a_claim_is_bounded_and_holds_the_oldest_images_of_each_turn(rotation: Rotation, size: int, max_bytes: int, listed: int) -> None:
    choice = rotation.choose(size, max_bytes, listed)
    images = {image.id: image for found in rotation.images.values() for image in found}
    chosen = [images[name] for name in choice.images]
    assert len(set(choice.images)) == len(choice.images) <= size
    assert len(chosen) == 1 or sum(image.size for image in chosen) <= max_bytes
    assert not any(image.solo for image in chosen) or (len(chosen) == 1 and choice.full)
    for turn, found in rotation.images.items():
        names = [image.id for image in found if image.id in choice.images]
        together = [image.id for image in found if not image.solo]
        assert names == together[: len(names)] or names == [found[0].id]
        assert names or turn not in choice.served_stores
    assert len(set(choice.served_stores)) == len(choice.served_stores)
    assert set(choice.served_accounts) <= {turn.account for turn in stores_of(rotation, choice)}
    assert choice.served_accounts or not choice.images


@given(rotations(), SIZES, BYTES)
def test_something_is_chosen_if_anything_is_claimable_and_a_claim_that_is_not_full_leaves_nothing(rotation: Rotation, size: int, max_bytes: int) -> None:
    choice = rotation.choose(size, max_bytes)
    assert bool(choice.images) == any(rotation.images.values())
    waiting = sum(map(len, rotation.images.values()))
    if not choice.full:
        assert len(choice.images) == waiting
    idle = {store.turn for store in choice.idle_stores}
    assert all(not rotation.images[turn] for turn in idle)
    for account in choice.idle_accounts:
        assert {store.turn for store in account.stores} <= idle


@given(rotations(solo=False, max_bytes=1), SIZES)
def test_a_claim_is_filled_and_no_account_has_more_than_half_while_others_wait(rotation: Rotation, size: int) -> None:
    choice = rotation.choose(size)
    assert len(choice.images) == min(size, sum(map(len, rotation.images.values())))
    shares = Counter(name.rpartition("/")[0].partition("/")[0] for name in choice.images)
    left = Counter[str]()
    for turn, images in left_of(rotation, choice).items():
        left[turn.account_id] += len(images)
    for account, share in shares.items():
        if any(left[other] for other in rotation.accounts if other != account and shares[other] < share):
            assert share <= math.ceil(size / 2)


@given(rotations(solo=False, max_accounts=1, max_bytes=1), SIZES)
def test_no_store_has_more_than_half_of_what_higher_priorities_leave_while_others_of_its_priority_wait(rotation: Rotation, size: int) -> None:
    choice = rotation.choose(size)
    shares = Counter(name.rpartition("/")[0] for name in choice.images)
    left = left_of(rotation, choice)
    room = size
    for rank in range(len(PRIORITIES)):
        of_rank = [turn for turn in rotation.images if turn.rank == rank]
        for turn in of_rank:
            if any(left[other] for other in of_rank if other != turn and shares[other.id] < shares[turn.id]):
                assert shares[turn.id] <= math.ceil(room / 2)
        room -= sum(shares[turn.id] for turn in of_rank)


@given(rotations(solo=False), SIZES, BYTES)
def test_within_an_account_no_image_is_chosen_before_one_of_a_higher_priority(rotation: Rotation, size: int, max_bytes: int) -> None:
    choice = rotation.choose(size, max_bytes)
    left = left_of(rotation, choice)
    for lower in stores_of(rotation, choice):
        assert not any(images for turn, images in left.items() if turn.account == lower.account and turn.rank < lower.rank)


@given(rotations(), SIZES, BYTES)
def test_all_images_are_served_and_no_account_and_no_store_waits_for_ever(rotation: Rotation, size: int, max_bytes: int) -> None:
    waiting = sum(map(len, rotation.images.values()))
    served: list[Turn] = []
    for _ in range(waiting):
        first = next((account for account in rotation.accounts if any(images for turn, images in rotation.images.items() if turn.account == account)), None)
        choice = rotation.choose(size, max_bytes)
        if first is not None:
            assert choice.served_accounts[0] == first
        served += rotation.serve(choice)
    assert len(served) == waiting
    assert not any(rotation.images.values())


@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 17), st.integers(100, 1000))
@settings(deadline=None, max_examples=50)
def test_accounts_with_many_images_are_served_equally_however_many_stores_they_have(accounts: int, stores: int, size: int, max_bytes: int) -> None:
    found = {}
    for number in range(accounts):
        for store in range(stores if number else 1):
            turn = Turn(f"user:{number}", "normal", f"store {store}")
            found[turn] = [Candidate(f"{turn.id}/{image}", 30 + image % 7, solo=False) for image in range(20 * size)]
    rotation = Rotation(found, [f"user:{number}" for number in range(accounts)], list(found))
    by_account, by_store = Counter[str | None](), Counter[Turn]()
    for _ in range(4 * accounts):
        served = rotation.serve(rotation.choose(size, max_bytes))
        by_account.update(turn.account for turn in served)
        by_store.update(turn for turn in served if turn.account == "user:1")
    assert max(by_account.values()) <= 2 * min(by_account[f"user:{number}"] for number in range(accounts)) + size
    if accounts > 1:
        assert max(by_store.values()) <= 2 * min(by_store[turn] for turn in found if turn.account == "user:1") + size


@given(rotations(solo=False), SIZES)
def test_a_store_name_means_another_turn_in_each_account(rotation: Rotation, size: int) -> None:
    same = {turn: replace_store(turn) for turn in rotation.images}
    renamed = Rotation({}, rotation.accounts, [])
    for turn in rotation.stores:
        renamed.images[same[turn]] = rotation.images[turn]
        renamed.stores.append(same[turn])
    before, after = rotation.choose(size), renamed.choose(size)
    assert (before.images, before.full) == (after.images, after.full)


def replace_store(turn: Turn) -> Turn:
    return turn._replace(store=f"{turn.account}'s {turn.store}")


def test_an_account_whose_first_image_must_be_alone_is_first_in_the_next_claim() -> None:
    a, b = (Turn(f"user:{name}", "normal", "north") for name in "ab")
    solo = [Candidate("b/0", 1, solo=True), Candidate("b/1", 1, solo=False)]
    rotation = Rotation({a: [Candidate(f"a/{number}", 1, solo=False) for number in range(9)], b: solo}, ["user:a", "user:b"], [a, b])
    claims = []
    for _ in range(4):
        choice = rotation.choose(4)
        claims.append(choice.images)
        rotation.serve(choice)
    assert claims == [["a/0", "a/1", "a/2", "a/3"], ["b/0"], ["a/4", "a/5", "a/6", "b/1"], ["a/7", "a/8"]]


def test_what_one_account_does_not_need_is_shared_by_the_stores_of_the_other() -> None:
    small = Turn("user:a", "normal", "north")
    large = [Turn("user:b", "normal", store) for store in ("east", "west")]
    images = {turn: [Candidate(f"{turn.id}/{number}", 1, solo=False) for number in range(40)] for turn in large}
    images[small] = [Candidate("one", 1, solo=False)]
    rotation = Rotation(images, ["user:a", "user:b"], [small, *large])
    served = Counter(rotation.serve(rotation.choose(31)))
    assert served == {small: 1, large[0]: 15, large[1]: 15}


def test_an_account_of_which_only_a_small_rest_fits_into_a_claim_keeps_its_turn() -> None:
    turns = [Turn(f"user:{name}", "normal", "north") for name in "abc"]
    rotation = Rotation({turn: [Candidate(f"{turn.id}/{number}", 1, solo=False) for number in range(99)] for turn in turns}, ["user:a", "user:b", "user:c"], turns)
    served = [Counter(turn.account for turn in rotation.serve(rotation.choose(13))) for _ in range(3)]
    assert [sorted(claim.values()) for claim in served] == [[1, 6, 6]] * 3
    assert sum(served, Counter()) == {"user:a": 13, "user:b": 13, "user:c": 13}
