"""The domain of Shelfsight, used by web and workers. It imports neither of them, and neither Flask nor torch."""
