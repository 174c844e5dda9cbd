"""The trainer, its recipes, losses and validation."""
