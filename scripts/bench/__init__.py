"""Benchmarks: the cost of accepting, processing and showing images, as ratios to baselines of the same run."""
