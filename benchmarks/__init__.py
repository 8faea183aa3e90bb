"""Benchmarks: every input form beside its peers and the limit of the machine, in one run."""
