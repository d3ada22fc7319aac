"""Float training, fine-tuning, and the baselines that stand beside every model."""
