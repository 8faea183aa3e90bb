"""The counting kernels of `refcocom_gpu`: each op as naive torch, Numba and Triton, equal to the bit.

A leaf: nothing here imports `refcocom_gpu`. Importing this package imports no torch, Numba or Triton.
"""
