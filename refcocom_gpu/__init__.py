"""The exact, GPU-accelerated batch scorer for RefCOCO-M."""

__version__ = "0.1.0"
