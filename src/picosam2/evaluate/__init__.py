"""Measuring weights: protocols, metrics and baselines."""
