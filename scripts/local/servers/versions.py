"""How old the version of a server is, and until when its makers repair it."""

from dataclasses import dataclass
from datetime import date
from typing import Final

_RELEASED: Final = {
    ("MongoDB", "6.0.5"): "2023-03",
    ("MongoDB", "7.0.43"): "2026-09",
    ("MongoDB", "8.0.32"): "2026-09",
    ("Valkey", "9.1.2"): "2026-08",
}
"""The months in which versions were released. Other versions come from the machine, and their age is not known here."""
_END_OF_LIFE: Final = {("MongoDB", "6.0"): "2025-07-31", ("MongoDB", "7.0"): "2027-08-31", ("MongoDB", "8.0"): "2029-10-31"}
"""See https://www.mongodb.com/legal/support-policy/lifecycles. Valkey names no date for 9.1."""


@dataclass(frozen=True, slots=True)
class ServerAge:
    """The version of a running server.

    ``released`` is a month (``2026-08``), ``age_months`` counts from it, and ``end_of_life`` is the last day on which
    the makers repair the series. They are None if they are not known.
    """

    name: str
    version: str
    released: str | None
    age_months: int | None
    end_of_life: str | None
    repaired: bool


def age_of(name: str, version: str, today: date) -> ServerAge:
    """Return what is known about a version."""
    released = _RELEASED.get((name, version))
    end_of_life = _END_OF_LIFE.get((name, version.rpartition(".")[0]))
    months = None
    if released is not None:
        year, month = map(int, released.split("-"))
        months = (today.year - year) * 12 + today.month - month
    return ServerAge(name, version, released, months, end_of_life, end_of_life is None or today <= date.fromisoformat(end_of_life))


def describe(age: ServerAge) -> str:
    """Return the version and its age as part of a sentence."""
    facts = []
    if age.released is not None and age.age_months is not None:
        old = f"{age.age_months} month{'s' * (age.age_months != 1)}" if age.age_months < 24 else f"{age.age_months / 12:.1f} years"
        facts.append(f"of {age.released}, {old} old")
    if age.end_of_life is not None:
        facts.append(f"{'repaired until' if age.repaired else 'end of life was'} {age.end_of_life}")
    return f"{age.name} {age.version}" + (f" ({', '.join(facts)})" if facts else "")
