"""The end of a spool's life: originals are stored under their own keys, and then the spool is deleted."""
