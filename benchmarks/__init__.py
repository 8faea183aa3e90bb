"""Benchmarks: every input form side by side with its peers and with the machine's limit, in one run."""
