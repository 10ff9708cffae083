"""The domain of Shelfsight. ``web`` and ``worker`` use this package; it imports neither of them, nor Flask or torch."""
