"""Object detection: models, the runtimes that execute them, and post-processing."""
