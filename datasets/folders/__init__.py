"""Recordings of your own as a data set: folders, tables, label files."""
