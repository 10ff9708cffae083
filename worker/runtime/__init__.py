"""What every Celery worker process needs: its task and command line, the lease keeper and the health check."""
