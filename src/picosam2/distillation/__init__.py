"""Teachers, their cached answers, and how good those are."""
