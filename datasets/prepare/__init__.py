"""Preparers: commands that turn a download, or a folder and a CSV, into the files that the data sets read."""
