"""What every Celery worker process needs: tasks, leases, memory settings and the health check."""
