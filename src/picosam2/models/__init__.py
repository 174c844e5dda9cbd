"""The network: its definition, encoders, checkpoints and costs."""
