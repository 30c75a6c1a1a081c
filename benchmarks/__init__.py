"""Measurements of speed, each a script that prints ratios measured side by side on one machine."""
