"""Who may use an installation: the modes that it keeps, what people are told about them, and its first administrator."""

import os
import socket
from pathlib import Path
from typing import Final

from pymongo.errors import PyMongoError

from scripts.local import messages
from scripts.local.installation import Installation, load_installation
from scripts.local.servers.errors import Unusable
from shared.accounts import users
from shared.errors import ShelfsightError
from shared.settings import Mongo
from shared.settings.values import is_loopback
from shared.storage.mongo import connect

_KEPT: Final = {"SHELFSIGHT_ENV": ("production", "development"), "ACCESS": ("on", "off")}
"""The modes that a data folder keeps, because they require credentials: the value by the name of the variable, and the
value that ends the mode."""


def keep_modes(data: Path) -> list[str]:
    """Set the variables of the modes with which a data folder was last started, unless the environment sets them.

    So an installation that requires credentials does not begin to serve everybody because a variable was forgotten.

    :returns: a sentence for each variable that was set.
    :raises PermissionError: when the folder belongs to another user.
    """
    last = load_installation(data)
    sentences = []
    for name, (kept, other) in _KEPT.items():
        if last is not None and last.variables.get(name) == kept and not os.environ.get(name):
            os.environ[name] = kept
            sentences.append(f"{name}={kept}, as at the last start with this data folder; {name}={other} scripts/start changes this")
    return sentences


def check_host(host: str) -> str | None:
    """Return a sentence that says why nothing on this machine can listen on a host; None if it can."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return f"WEB_HOST={host} is not an address of this machine ({error.strerror or error}); set it to one, or to 0.0.0.0 for all, or unset it for loopback"
    return None


def describe(installation: Installation) -> str:
    """Return a sentence that says who can use an installation."""
    where = installation.web_host
    if installation.needs_credentials:
        reach = "other machines cannot connect" if is_loopback(where) else f"other machines can connect ({where}:{installation.port}, plain HTTP)"
        return f"{'production' if installation.is_production else 'development'}; every request needs credentials; {reach}"
    who = "every user and program of this machine" if is_loopback(where) else f"everybody who reaches {where}:{installation.port}"
    return f"OPEN (development): nobody needs credentials, so {who} can see, change and delete everything. SHELFSIGHT_ENV=production scripts/start requires credentials"


def has_administrator(installation: Installation) -> bool | None:
    """Return whether somebody can administer the users of an installation; None if its MongoDB does not respond."""
    try:
        db = connect(Mongo(url=installation.mongodb_url()), app="start")
        with db.client:
            return users.has_administrator(db)
    except (ShelfsightError, PyMongoError, Unusable):
        return None


def first_administrator_command(installation: Installation) -> str:
    """Return the command that creates the first administrator."""
    return f"{messages.command('admin', installation.data)} create-user NAME --role admin --stores '*'"
