"""Run Shelfsight on one machine: embedded servers, the watchdog and its supervisor, and commands to control them."""
