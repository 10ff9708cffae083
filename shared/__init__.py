"""The domain of Shelfsight: what both the web front and the workers know. Imports neither, knows no Flask and no torch."""
