"""One machine: embedded servers, the supervisor, and what it looks after."""
