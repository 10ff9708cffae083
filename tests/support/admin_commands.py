"""Run the commands of ``scripts/admin`` in this process."""

import json
from typing import Any, Final

from click.testing import CliRunner, Result

from scripts.administration.__main__ import cli
from shared.accounts.authenticator import Authenticator
from shared.accounts.signing_keys import FixedSigningKeys
from shared.accounts.tokens import TokenSigner
from shared.storage.mongo import Db

PASSWORD: Final = "quiet copper lantern"


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    """Run a command."""
    return CliRunner().invoke(cli, arguments, input=stdin)


def run_json(*arguments: str, stdin: str | None = None) -> dict[str, Any]:
    """Return the JSON object that a command prints."""
    result = run(*arguments, "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def fail(*arguments: str, code: int = 1, stdin: str | bytes | None = None) -> str:
    """Return the error sentence of a command that fails."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def authenticator(db: Db) -> Authenticator:
    """Return an authenticator that accepts API keys, but no tokens."""
    return Authenticator(db, TokenSigner(FixedSigningKeys({})))
