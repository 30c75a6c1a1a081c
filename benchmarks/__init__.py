"""Benchmarks: scripts that interleave the runs of several variants on one machine and print their ratios."""
