"""List, cancel and undo jobs."""
