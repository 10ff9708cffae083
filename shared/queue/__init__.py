"""Distributes work: the Celery application, wakeups through Redis, and leases and heartbeats in MongoDB."""
