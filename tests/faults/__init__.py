"""Fault tests: kills, flushes, freezes and full disks against the real services. An oracle checks that nothing was lost."""
