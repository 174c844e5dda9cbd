"""Writing trained weights for the places where they run."""
