"""What inference.py does: files, embeddings, streams."""
