"""Weights in 8 bits: calibration on crops of a store, and what the file loses by it."""
