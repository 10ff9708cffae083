"""Benchmarks: the cost of accepting, processing and showing images, relative to baselines measured in the same run."""
