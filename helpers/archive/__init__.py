"""Tags, events and embeddings of very many recordings, on Ray Data, and questions about them."""
