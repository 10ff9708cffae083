"""Tools to run, feed, test and measure Shelfsight."""
