"""Shelfsight on one machine: embedded servers, the watchdog with its supervisor, and the commands that control them."""
