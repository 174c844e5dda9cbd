"""What runs the network: one protocol and its implementations, and the weights that ship."""
