"""The version, in a file of its own so that nothing below imports the package itself."""

__version__ = "0.1.0"
