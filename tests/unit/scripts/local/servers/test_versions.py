"""The age of a server's version, and until when it is repaired."""

from datetime import date

from scripts.local.servers import mongod_download
from scripts.local.servers.versions import age_of, describe


def test_a_version_past_its_end_of_life_is_not_repaired() -> None:
    age = age_of("MongoDB", "6.0.5", date(2026, 11, 29))
    assert (age.released, age.age_months, age.end_of_life, age.repaired) == ("2023-03", 44, "2025-07-31", False)
    assert describe(age) == "MongoDB 6.0.5 (of 2023-03, 3.7 years old, end of life was 2025-07-31)"
    assert age_of("MongoDB", "6.0.5", date(2025, 7, 31)).repaired


def test_a_current_version_is_repaired() -> None:
    assert describe(age_of("MongoDB", "8.0.32", date(2026, 11, 29))) == "MongoDB 8.0.32 (of 2026-09, 2 months old, repaired until 2029-10-31)"
    assert describe(age_of("Valkey", "9.1.2", date(2026, 11, 29))) == "Valkey 9.1.2 (of 2026-08, 3 months old)"


def test_what_is_not_known_is_not_said() -> None:
    age = age_of("Redis", "7.2.4", date(2026, 11, 29))
    assert (age.released, age.age_months, age.end_of_life, age.repaired) == (None, None, None, True)
    assert describe(age) == "Redis 7.2.4"
    assert describe(age_of("MongoDB", "8.0.4", date(2026, 11, 29))) == "MongoDB 8.0.4 (repaired until 2029-10-31)"


def test_the_age_of_every_version_that_is_downloaded_is_known() -> None:
    for archive in mongod_download._ARCHIVES.values():
        age = age_of("MongoDB", archive.version, date(2026, 11, 29))
        assert age.released is not None
        assert age.end_of_life is not None
