"""The sweep, which finishes work that a crash has interrupted, and deletes data that is no longer needed."""
