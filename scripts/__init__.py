"""Tools to start Shelfsight, upload images to it, test it and measure it."""
