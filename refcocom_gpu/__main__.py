"""`python -m refcocom_gpu` is `refcocom`."""

import sys

from refcocom_gpu.cli.main import command

# Guarded, because a worker process that is spawned imports the main module once more.
if __name__ == "__main__":
    sys.exit(command())
