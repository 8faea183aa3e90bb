"""Torch tensors on a CUDA device in, integer counts out: the Triton ops, one module each: kernel, then launcher."""
