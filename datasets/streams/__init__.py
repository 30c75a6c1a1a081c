"""Sound that is still being written: pipes, raw samples, containers read as they come."""
