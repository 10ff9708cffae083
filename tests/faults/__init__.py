"""Kills, flushes, freezes and full disks, against the real services; one oracle says whether anything was lost."""
