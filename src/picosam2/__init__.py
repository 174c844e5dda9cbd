"""PicoSAM2: point at a thing, get its mask."""
