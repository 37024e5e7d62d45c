"""``python -m openmm_diffsim``: the command line."""

import sys

from .cli import main

sys.exit(main())
