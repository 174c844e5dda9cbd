"""Measuring weights: protocols, metrics, baselines, peers."""
