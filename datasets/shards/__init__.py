"""Shards: parquet files and tars that hold many recordings each, read clip by clip without unpacking."""
