"""The first start of the containers: it says how to create the first administrator, if one is needed."""

import pytest

from deploy import initiate_mongodb
from shared import settings
from shared.storage.mongo import Db
from tests.support.accounts import make_user


def test_the_command_for_the_first_administrator_is_printed_until_there_is_one(db: Db, mongo: settings.Mongo, capsys: pytest.CaptureFixture[str]) -> None:
    make_user(db, "vera", "viewer")
    disabled = make_user(db, "adam", "admin")
    db.users.update_one({"_id": disabled.id}, {"$set": {"disabled": True}})
    initiate_mongodb._explain_first_administrator(mongo)
    command = "docker compose run --rm --no-deps web python -m scripts.administration create-user NAME --role admin --stores '*'"
    assert capsys.readouterr().out == f"There is no administrator yet; create the first one with: {command}\n"
    make_user(db, "anna", "admin")
    initiate_mongodb._explain_first_administrator(mongo)
    assert capsys.readouterr().out == ""


def test_only_a_service_with_credentials_needs_an_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHELFSIGHT_ENV", "ACCESS", "SIGNING_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SIGNING_KEYS_FILE", "keys")
    assert not initiate_mongodb._is_access_on()
    monkeypatch.setenv("SHELFSIGHT_ENV", "production")
    assert initiate_mongodb._is_access_on()
    monkeypatch.setenv("SIGNED_URL_LIFETIME_S", "long")
    assert not initiate_mongodb._is_access_on()
