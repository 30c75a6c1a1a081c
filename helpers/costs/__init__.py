"""What a network costs: MACs, memory, receptive field."""
