"""A Flask application with one route that returns ``{}``."""

from flask import Flask, Response


def create_app() -> Flask:
    """Create the Flask application."""
    app = Flask(__name__)

    @app.get("/")
    def index() -> Response:
        return Response(b"{}", mimetype="application/json")

    return app
