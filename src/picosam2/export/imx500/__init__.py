"""Weights to what the Sony IMX500 image sensor runs: `packerOut.zip`."""
