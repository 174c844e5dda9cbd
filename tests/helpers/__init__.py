"""What several test modules need: tiny data sets, and runtimes whose answers are known."""
