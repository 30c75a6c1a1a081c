"""Scenes of 10 s with sound events at known times, mixed from the open corpus."""
