"""A run over many images: what to do, doing it on all processors, and what is done already."""
