"""`python -m refcocom_gpu` is `refcocom`."""

import sys

from refcocom_gpu.cli import main

sys.exit(main())
