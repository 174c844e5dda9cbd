"""Training: losses, configuration and the trainer."""
