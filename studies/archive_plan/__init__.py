"""Plan a run of archive.py over 10^5 to 10^8 recordings: measured costs of its stages, and a simulation of the whole."""
