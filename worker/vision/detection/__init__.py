"""Object detection: load models, execute them with a runtime, and post-process their outputs."""
