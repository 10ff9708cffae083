"""Benches: what taking and showing images costs, as ratios against baselines measured in the same run."""
