"""Segmentation over HTTP, for programs on the same machine: `picosam2 serve`."""
