"""Shallow probes on embeddings, by HEAR's protocol."""
