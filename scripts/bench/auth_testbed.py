"""Users, keys and sessions in a new database, for the benchmark of access."""

import json
import secrets
import threading
from typing import Final

from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from scripts.bench.servers import Servers
from shared import settings
from shared.accounts import api_keys, sessions, users
from shared.accounts.api_keys import NewKey
from shared.accounts.authenticator import Authenticator
from shared.accounts.permissions import OPERATOR, ROLES, Rights, Role
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.accounts.users import NewUser, User
from shared.storage.mongo import Db, Document

_SIGNING_KEY_ID: Final = "bench"


class CountingListener(CommandListener):
    """Counts the commands that the driver sends. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.commands = 0

    def started(self, _event: CommandStartedEvent) -> None:
        """Count a command."""
        with self._lock:
            self.commands += 1

    def succeeded(self, _event: CommandSucceededEvent) -> None:
        """Ignore the response."""

    def failed(self, _event: CommandFailedEvent) -> None:
        """Ignore the response."""


class Testbed:
    """A database with accounts. All tokens are signed with the same key."""

    def __init__(self, servers: Servers) -> None:
        self.servers, self.db = servers, servers.db
        self.signing_key = secrets.token_urlsafe(32)
        self.signer = TokenSigner(FixedSigningKeys({_SIGNING_KEY_ID: self.signing_key.encode()}))

    def settings(self, *, is_on: bool, per_minute: int = 0) -> settings.Settings:
        """Return the settings of a web front, whose requests need credentials if ``is_on``.

        :param per_minute: the quota of each client; 0 means that requests are not counted.
        """
        access = settings.Access(access="on" if is_on else "off", signing_keys=json.dumps({_SIGNING_KEY_ID: self.signing_key}))
        rates = settings.Rates(requests_per_minute=per_minute, address_per_minute=per_minute)
        return self.servers.settings.model_copy(update={"access": access, "rates": rates})

    def new_authenticator(self, db: Db | None = None) -> Authenticator:
        """Return an authenticator with an empty cache.

        :param db: its connection. If None, it gets one of its own, as in another web process.
        """
        return Authenticator(self.servers.connect() if db is None else db, self.signer)

    def connect_with(self, listener: CommandListener) -> Db:
        """Connect to the database with a listener that hears of all commands."""
        client: MongoClient[Document] = MongoClient(self.servers.mongo.url, event_listeners=[listener])
        return client[self.db.name]

    def create_user(self, role: Role = "uploader") -> User:
        """Create a user without a password."""
        return users.create(self.db, NewUser(f"user-{secrets.token_hex(8)}", None, role, Rights(ROLES[role], None), None))

    def create_key(self, user: User) -> tuple[str, str]:
        """Create a key of a user with the rights of the user, and return its id and its text."""
        key, text = api_keys.create(self.db, NewKey("bench", user.role, user.rights, user.id, OPERATOR))
        return key.id, text

    def sign_in(self, user: User) -> str:
        """Start a session of a user, and return its access token."""
        return sessions.start(self.db, self.signer, user).access_token
