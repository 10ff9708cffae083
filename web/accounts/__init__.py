"""Sign-up, sign-in, users, invitations, and API keys."""
