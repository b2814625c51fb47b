"""Benchmarks: CPU per piece of work, as ratios against a baseline run beside it. Run with ``make bench``."""
