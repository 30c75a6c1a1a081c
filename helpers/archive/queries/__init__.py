"""Questions to what an archive holds."""
