"""``python -m openmm_diffsim``: the command line."""

import atexit

from . import interrupts
from .cli import main


def run() -> None:
    """Run the command that the arguments name, and end this process."""
    interrupts.arm()
    try:
        code = main()
    except SystemExit as end:  # of argparse
        code = end.code if isinstance(end.code, int) else 1
    atexit._run_exitfuncs()
    interrupts.end(code)


if __name__ == "__main__":
    run()
