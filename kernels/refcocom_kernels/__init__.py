"""The counting kernels of `refcocom_gpu`: each op as naive torch, Numba and Triton, equal to the bit.

Arrays or tensors come in, exact integers go out. `reference.py` defines every op; start there. This package is a leaf:
nothing here imports `refcocom_gpu`, and importing it imports no torch, Numba or Triton.
"""
