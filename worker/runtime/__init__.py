"""Code that every Celery worker needs: its task, its command line, the lease keeper, and the health check."""
