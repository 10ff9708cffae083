"""The errors of migrations. Their messages are for operators."""


class MigrationError(Exception):
    """The migrations did not finish. A further run continues where this one ended."""


class Locked(MigrationError):
    """Another process has been holding the lock of the migrations for too long."""


class LockLost(MigrationError):
    """Another process has taken over the lock, because this process did not renew its lease in time."""


class Inconsistent(MigrationError):
    """The migrations that the database records cannot have been run by this code or by a newer version of it."""


class Failed(MigrationError):
    """A migration ended with an unexpected error, which is the cause of this exception."""
