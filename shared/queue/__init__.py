"""Celery on Redis: the work queues, wakeups and heartbeats."""
