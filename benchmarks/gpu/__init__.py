"""Checks and timings that need a GPU: that it is exact, and how fast it is."""
