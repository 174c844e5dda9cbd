"""Annotations to instance records, crop store and batches."""
