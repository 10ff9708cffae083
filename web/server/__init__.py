"""The gunicorn configuration and the gunicorn worker class."""
