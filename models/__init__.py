"""Audio tagging networks: MobileNetV3, its log-mel front end, the registry of released checkpoints."""
