"""Recordings of every kind that people have, whole and damaged, made in memory, and how they are read."""
