"""How accounts and their stores share a claim, in images and in bytes. This module decides; ``claims`` reads and writes.

While other accounts wait, an account fills at most half of a claim. Within its share, images of a higher priority come
first, and while other stores of the account wait with images of the same priority, a store fills at most half of what the
higher priorities leave. The first account, and within it the first store, get what the others do not need.

An image that must be processed alone is claimed alone, and only if it is the first of the claim.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from shared.ledger.turns import AccountTurn, StoreTurn, Turn


class Candidate(NamedTuple):
    """An image that can be claimed. ``size`` is the number of its bytes; ``solo`` says whether it must be processed alone."""

    id: str
    size: int
    solo: bool


Read = Callable[[Turn, int], list[Candidate]]
"""Returns the oldest claimable images of a turn, at most as many as the second parameter says."""


@dataclass(slots=True)
class Choice:
    """The images to claim, by id.

    ``served_accounts`` (by the ids of their turns) and ``served_stores`` have had their turn. Those of which only a small part
    fits into the rest of the claim have not. ``idle_accounts`` and ``idle_stores`` have no claimable image. ``full`` says
    whether further images are probably claimable, because the claim cannot hold them or because they have not been read.
    """

    images: list[str] = field(default_factory=list)
    served_accounts: list[str] = field(default_factory=list)
    served_stores: list[Turn] = field(default_factory=list)
    idle_accounts: list[AccountTurn] = field(default_factory=list)
    idle_stores: list[StoreTurn] = field(default_factory=list)
    full: bool = False


def choose(turns: Sequence[AccountTurn], read: Read, size: int, max_bytes: int, *, listed: int) -> Choice:
    """Choose the images for one claim. Of each turn, only as many images are read as the claim can still hold.

    :param turns: the waiting accounts in the order of their turns.
    :param size: maximum number of images.
    :param max_bytes: maximum bytes of the images. A single image that is larger is chosen alone.
    :param listed: maximum number of accounts in ``turns``, and of the stores of each; if there are as many, there may be more.
    """
    room, half = _Room(size, max_bytes), _Room(max(1, size // 2), max(1, max_bytes // 2))
    accounts: list[_Account] = []
    serving: list[_Account] = []
    for turn in turns:
        if room.is_empty:
            break
        account = _Account(turn, read)
        accounts.append(account)
        account.choose(room.at_most(half), room.images, is_first=not serving)
        if account.solo_image is not None:
            return _choose_alone(account, accounts, account.solo_image)
        if account.is_idle or account.waits_to_be_first:
            continue
        if account.blocked_size > room.bytes:
            break  # this account is served first in the next claim, so its large image does not wait long
        serving.append(account)
        room.subtract(account)
    for account in serving:  # fill the remaining room with further images of these accounts
        room.add(account)
        account.choose(room, room.images, is_first=account is serving[0])
        room.subtract(account)
    choice = _merge(turns, accounts, room, listed)
    choice.served_accounts = [account.turn.id for account in serving if account.chosen and account.is_served(half, is_first=account is serving[0])]
    return choice


def _choose_alone(account: "_Account", accounts: list["_Account"], image: tuple[Turn, str]) -> Choice:
    choice = Choice([image[1]], [account.turn.id], [image[0]], full=True)
    _add_idle(choice, accounts)
    return choice


def _merge(turns: Sequence[AccountTurn], accounts: list["_Account"], room: "_Room", listed: int) -> Choice:
    choice = Choice()
    _add_idle(choice, accounts)
    for account in accounts:
        choice.images += [image.id for images in account.chosen.values() for image in images]
        choice.served_stores += account.served
    may_be_more_accounts = len(turns) == listed and not choice.idle_accounts
    choice.full = room.images <= 0 or len(accounts) < len(turns) or may_be_more_accounts or any(account.has_more(listed) for account in accounts)
    return choice


def _add_idle(choice: Choice, accounts: list["_Account"]) -> None:
    for account in accounts:
        choice.idle_stores += account.idle
        if account.is_idle:
            choice.idle_accounts.append(account.turn)


@dataclass(slots=True)
class _Room:
    """A number of images and a number of bytes."""

    images: int
    bytes: int

    @property
    def is_empty(self) -> bool:
        return self.images <= 0 or self.bytes <= 0

    def at_most(self, other: "_Room") -> "_Room":
        return _Room(min(self.images, other.images), min(self.bytes, other.bytes))

    def subtract(self, account: "_Account") -> None:
        """Subtract what is chosen of an account."""
        for images in account.chosen.values():
            self.images -= len(images)
            self.bytes -= _sum_of(images)

    def add(self, account: "_Account") -> None:
        """Add what is chosen of an account, which is to be chosen anew."""
        for images in account.chosen.values():
            self.images += len(images)
            self.bytes += _sum_of(images)

    def is_large_for(self, images: int, size: int) -> bool:
        """Return whether a number of images with a total size is less than half of this."""
        return 2 * images < self.images and 2 * size < self.bytes

    def take(self, images: list[Candidate], share: "_Room", *, least: int = 0) -> list[Candidate]:
        """Remove and return the first of ``images`` that fit here and into a share, and reduce this room by them.

        :param least: number of images to take regardless of their bytes.
        """
        fits, taken, total = self.at_most(share), 0, 0
        for image in images[: max(0, fits.images)]:
            if taken >= least and total + image.size > fits.bytes:
                break
            taken += 1
            total += image.size
        self.images -= taken
        self.bytes -= total
        found = images[:taken]
        del images[:taken]
        return found


def _sum_of(images: list[Candidate]) -> int:
    return sum(image.size for image in images)


class _Account:
    """An account whose images are chosen, perhaps several times with different shares. Each turn is read once.

    ``chosen`` are the images by store, and ``served`` the stores that have had their turn. ``solo_image`` must be claimed alone, and now. ``waits_to_be_first`` says that the
    account is not served because its first image must be claimed alone, but not now. ``blocked_size`` is the size of its first
    image if nothing is chosen because this image does not fit into the share; otherwise 0.
    """

    def __init__(self, turn: AccountTurn, read: Read) -> None:
        self.turn, self._read = turn, read
        self._found: dict[Turn, list[Candidate]] = {}
        self._unread: set[Turn] = set()
        """The turns that may have further images, because as many were read as were asked for."""
        self.idle: list[StoreTurn] = []
        self._reset()

    def _reset(self) -> None:
        self.chosen: dict[Turn, list[Candidate]] = {}
        self.served: list[Turn] = []
        self.solo_image: tuple[Turn, str] | None = None
        self.waits_to_be_first = False
        self.blocked_size = 0
        self._left = self._passed = False

    @property
    def is_idle(self) -> bool:
        """Whether none of the listed stores has a claimable image."""
        return len(self.idle) == len(self.turn.stores)

    def is_served(self, share: _Room, *, is_first: bool) -> bool:
        """Return whether the account has had its turn: it was first, no image is left, or it got half of a share at least."""
        images = [image for chosen in self.chosen.values() for image in chosen]
        all_chosen = not self._left and not self._unread and len(self._found) == len(self.turn.stores)
        return is_first or all_chosen or not share.is_large_for(len(images), _sum_of(images))

    def has_more(self, listed: int) -> bool:
        """Whether claimable images were not chosen, or may not have been read."""
        may_be_more_stores = len(self.turn.stores) == listed and not self.idle
        return self._left or may_be_more_stores or len(self._found) < len(self.turn.stores)

    def choose(self, share: _Room, limit: int, *, is_first: bool) -> None:
        """Choose the images that fit into a share of the claim.

        :param limit: how many images of a store to read at most.
        :param is_first: whether no other account has images in the claim. If so, at least one image is chosen.
        """
        self._reset()
        room = _Room(share.images, share.bytes)
        for _, stores in groupby(self.turn.stores, lambda store: store.turn.rank):
            if room.is_empty or not self._choose_of_rank(room, list(stores), limit, is_first=is_first):
                return

    def _choose_of_rank(self, room: _Room, stores: list[StoreTurn], limit: int, *, is_first: bool) -> bool:
        """Choose images of one priority, and return whether images of lower priorities may follow."""
        half = _Room(max(1, room.images // 2), room.bytes // 2)
        left: dict[Turn, list[Candidate]] = {}
        for store in stores:
            if room.is_empty:
                break
            found = self._images_of(store, limit)
            if not found:
                continue
            if found[0].solo:
                self._left = True
                if self._passed:
                    continue
                self._meet_solo(store, found[0], is_first=is_first)
                return False
            self._passed = True
            left[store.turn] = images = [image for image in found if not image.solo]
            self._left |= len(images) < len(found)
            taken = room.take(images, half, least=1 if is_first and not self.chosen else 0)
            self._add(store.turn, taken)
            if not taken and images[0].size > room.bytes:
                self.blocked_size = 0 if self.chosen else images[0].size
                break  # this store is first in the next turn of its account
        for turn, images in left.items():  # fill the remaining room with further images of these stores
            self._add(turn, room.take(images, room))
        self._record_served(left, half)
        remain = any(left.values())
        self._left |= remain
        return not remain

    def _record_served(self, left: dict[Turn, list[Candidate]], share: _Room) -> None:
        """Record which stores of a priority have had their turn, by the rule of ``is_served``."""
        is_first = True
        for turn, images in left.items():
            chosen = self.chosen.get(turn, [])
            if chosen and (is_first or not (images or turn in self._unread) or not share.is_large_for(len(chosen), _sum_of(chosen))):
                self.served.append(turn)
            is_first &= not chosen

    def _meet_solo(self, store: StoreTurn, image: Candidate, *, is_first: bool) -> None:
        if is_first:
            self.solo_image = (store.turn, image.id)
        else:
            self.waits_to_be_first = True

    def _add(self, store: Turn, images: list[Candidate]) -> None:
        if images:
            self.chosen.setdefault(store, []).extend(images)

    def _images_of(self, store: StoreTurn, limit: int) -> list[Candidate]:
        if store.turn not in self._found:
            self._found[store.turn] = found = self._read(store.turn, limit)
            if not found:
                self.idle.append(store)
            if len(found) >= limit:
                self._unread.add(store.turn)
        return self._found[store.turn]
