"""The sweep: repairs what a crash left unfinished, and deletes what is no longer needed."""
