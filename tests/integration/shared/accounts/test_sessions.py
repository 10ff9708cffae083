"""A session ends with the password with which it began, also if the sign-in and the change happen at the same time."""

import pytest

from shared.accounts import sessions, users
from shared.accounts.authenticator import Authenticator
from shared.accounts.permissions import OPEN
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.accounts.users import Change
from shared.errors import Unauthorized
from shared.storage.mongo import Db
from tests.support.accounts import SIGNING_KEYS, make_user

SIGNER = TokenSigner(FixedSigningKeys({name: key.encode() for name, key in SIGNING_KEYS.items()}))


def assert_refused(db: Db, tokens: sessions.Tokens) -> None:
    with pytest.raises(Unauthorized):
        Authenticator(db, SIGNER).authenticate(tokens.access_token)
    with pytest.raises(Unauthorized):
        sessions.refresh(db, SIGNER, tokens.refresh_token)


def test_a_session_that_begins_with_the_old_password_during_its_change_is_refused(db: Db) -> None:
    user = make_user(db)
    changed = sessions.change_password(db, user, "another hash")
    assert_refused(db, sessions.start(db, SIGNER, user))
    assert Authenticator(db, SIGNER).authenticate(sessions.start(db, SIGNER, changed).access_token).username == "anna"


def test_a_session_that_begins_while_its_user_is_disabled_stays_refused(db: Db) -> None:
    user = make_user(db)
    users.change(db, "anna", Change(disabled=True), OPEN.rights)
    tokens = sessions.start(db, SIGNER, user)
    assert_refused(db, tokens)
    users.change(db, "anna", Change(disabled=False), OPEN.rights)
    assert_refused(db, tokens)


def test_of_two_changes_of_a_password_the_second_is_refused(db: Db) -> None:
    user = make_user(db)
    sessions.change_password(db, user, "first")
    with pytest.raises(Unauthorized):
        sessions.change_password(db, user, "second")
    assert users.get(db, "anna").password_hash == "first"


def test_a_user_has_at_most_a_hundred_sessions(db: Db) -> None:
    user = make_user(db)
    first = sessions.start(db, SIGNER, user)
    for _ in range(100):
        last = sessions.start(db, SIGNER, user)
    assert db.sessions.count_documents({}) == 100
    assert_refused(db, first)
    assert Authenticator(db, SIGNER).authenticate(last.access_token).username == "anna"
