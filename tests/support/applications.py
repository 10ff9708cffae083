"""Web applications for tests that need no server."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from shared.settings import Access, Logging, Settings
from web.app import create_app


@contextmanager
def open_app(access: Access | None = None) -> Iterator[Flask]:
    """Yield an application with default settings, and close its services at the end. It has opened no connection."""
    app = create_app(Settings(log=Logging(level="CRITICAL"), access=access or Access()))
    try:
        yield app
    finally:
        app.extensions["shelfsight"].close()
