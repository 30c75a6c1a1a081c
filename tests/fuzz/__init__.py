"""Attacks on every entry point that takes a file: python -m tests.fuzz --count 1000

An input is undamaged, one of the attacks made by hand, or an undamaged one with random damage. It goes through an entry point in a
process of its own, forked from one in which all is imported. The outcome is a right result, or one line and a non-zero exit code,
within limits of time and memory, without a file opened or written elsewhere and without anything left behind. For Linux.
"""
