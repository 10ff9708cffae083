"""The keys that sign tokens and URLs. They can be replaced while the service runs.

A new key comes first in the file, and the old one stays after it until everything that it has signed has expired. All
processes read a changed file within two seconds, and sign with its first key half a minute after the change. So no process
gets a signature of a key that it has not read yet.
"""

import hmac
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from shared import telemetry
from shared.settings.access import Access, parse_signing_keys

SIGNS_AFTER_S: Final = 30.0
"""Seconds after a change of the file until its first key signs. Until then, the second one does, if there is one."""
CHECK_EVERY_S: Final = 2.0
"""Seconds between two looks at the file."""


class KeySet:
    """The keys that are valid at one moment: secrets by id, and the id of the one that signs (None: there is no key)."""

    def __init__(self, secrets: Mapping[str, bytes], signing_id: str | None) -> None:
        self.secrets, self.signing_id = dict(secrets), signing_id
        self._derived: dict[str, dict[str, bytes]] = {}

    def derive(self, purpose: str) -> Mapping[str, bytes]:
        """Return keys for another purpose by the ids of the keys from which they are derived.

        Whoever knows a derived key can make no signature of another purpose, such as an access token.
        """
        if purpose not in self._derived:
            self._derived[purpose] = {key_id: derive_key(secret, purpose) for key_id, secret in self.secrets.items()}
        return self._derived[purpose]


class SigningKeys(Protocol):
    """The signing keys of the installation. Thread-safe."""

    def current(self) -> KeySet:
        """Return the keys that are valid now."""


class FixedSigningKeys:
    """Signing keys that stay as they are.

    :param secrets: the secrets by id; the first one signs.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._set = KeySet(secrets, next(iter(secrets), None))

    def current(self) -> KeySet:
        """Return the keys that are valid now."""
        return self._set


class SigningKeyFile:
    """The signing keys in a file, which is read again when it has changed. Thread-safe.

    If a changed file cannot be read or is invalid, the keys stay as they were. This is logged at once, and then once a
    minute until the file is valid again.

    :param wall_clock: returns the time in Unix seconds, as in the modification time of the file.
    :param is_production: whether secrets that look like examples are invalid.
    :raises OSError: when the file cannot be read.
    :raises ValueError: when its content is not a value of the setting ``SIGNING_KEYS``.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time, *, is_production: bool = False) -> None:
        self._path, self._clock, self._wall_clock, self._is_production = path, clock, wall_clock, is_production
        self._lock = threading.Lock()
        self._failures = telemetry.RepeatLimit(telemetry.REPEAT_INTERVAL_S)
        self._has_failed = False
        self._version, self._secrets = self._read()
        self._changed_at = self._find_change()
        self._check_at = clock() + CHECK_EVERY_S
        self._set = self._choose(self._secrets)

    def current(self) -> KeySet:
        """Return the keys that are valid now."""
        if self._clock() >= self._check_at:
            with self._lock:
                self._check()
        return self._set

    def _check(self) -> None:
        self._check_at = self._clock() + CHECK_EVERY_S
        try:
            if self._has_failed or self._stat() != self._version:
                self._read_again()
        except (OSError, ValueError) as error:
            self._report_failure(error)
        chosen = self._choose(self._secrets)
        if (chosen.secrets, chosen.signing_id) != (self._set.secrets, self._set.signing_id):
            self._set = chosen

    def _read_again(self) -> None:
        version, secrets = self._read()
        if version != self._version:
            self._version, self._secrets = version, secrets
            self._changed_at = self._find_change()
        self._has_failed = False
        telemetry.errors.info("the signing keys were read again: %s", ", ".join(secrets))

    def _report_failure(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed, self._failures = True, telemetry.RepeatLimit(telemetry.REPEAT_INTERVAL_S)
        if (omitted := self._failures.count_omitted(str(error))) is not None:
            telemetry.errors.error(
                "cannot read the signing keys again, so those that were read before stay valid; repair %s before the next start: %s (%d such errors were not logged)", self._path, error, omitted
            )

    def _find_change(self) -> float:
        """Return when the file has changed, in Unix seconds. A time in the future, which is wrong, counts as now."""
        modified_ns, _, _ = self._version
        return min(modified_ns / 1e9, self._wall_clock())

    def _choose(self, secrets: Mapping[str, bytes]) -> KeySet:
        is_new = self._wall_clock() - self._changed_at < SIGNS_AFTER_S
        return KeySet(secrets, list(secrets)[1 if is_new and len(secrets) > 1 else 0])

    def _read(self) -> tuple[tuple[int, int, int], dict[str, bytes]]:
        version = self._stat()
        return version, parse_signing_keys(self._path.read_text(), is_production=self._is_production)

    def _stat(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size


def open_signing_keys(access: Access) -> SigningKeys:
    """Return the signing keys in the settings. ``SIGNING_KEYS`` takes precedence over the file; without both, there are none.

    :raises OSError: when the file cannot be read.
    :raises ValueError: when its content is not a value of the setting ``SIGNING_KEYS``.
    """
    text = access.signing_keys.get_secret_value()
    if text:
        return FixedSigningKeys(parse_signing_keys(text))
    if access.signing_keys_file is None:
        return FixedSigningKeys({})
    return SigningKeyFile(access.signing_keys_file, is_production=access.is_production)


def derive_key(secret: bytes, purpose: str) -> bytes:
    """Return a key for one purpose: an HMAC with SHA-256 as 64 ASCII characters in hexadecimal."""
    return hmac.digest(secret, purpose.encode(), "sha256").hex().encode()
