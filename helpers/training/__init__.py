"""Training: the loop, runs, sampling, objectives, optimization, fine-tuning."""
