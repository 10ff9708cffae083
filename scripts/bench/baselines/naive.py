"""A naive implementation of uploads: Flask parses the body and sends all of it in a Celery message."""

import os

from celery import Celery
from flask import Flask, Response, jsonify, request

QUEUE = "naive"


def create_app() -> Flask:
    """Create the Flask application; its Celery broker is the Redis whose URL is in the variable ``REDIS_URL``."""
    app = Flask(__name__)
    celery = Celery("naive", broker=os.environ["REDIS_URL"])
    celery.conf.task_default_queue = QUEUE
    celery.conf.task_ignore_result = True

    @app.post("/upload_image_batch")
    def upload() -> tuple[Response, int]:
        task = celery.send_task("process_images", args=[request.get_json()])
        return jsonify(task_id=task.id), 202

    return app
