"""Experiments that answer a question with several trainings, repeatable by one command each."""
