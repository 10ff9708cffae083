"""A Flask route that does nothing."""

from flask import Flask, Response


def create_app() -> Flask:
    """Build it."""
    app = Flask(__name__)

    @app.get("/")
    def nothing() -> Response:
        return Response(b"{}", mimetype="application/json")

    return app
