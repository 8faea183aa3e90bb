"""The Numba kernels; importing one of these modules imports Numba."""
