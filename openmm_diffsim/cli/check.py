"""``openmm-diffsim check``: what a configuration would do, what it costs, what is suspicious."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import FINISHED, trust_option


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser(
        "check", help="what a configuration would do, and what it costs, without running it"
    )
    command.add_argument("config", type=Path, metavar="CONFIG.toml")
    command.add_argument(
        "--no-trial", action="store_true", help="do not sample a few frames to time them"
    )
    trust_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Build everything that the configuration describes, and say what would come of it."""
    from ..configuration.build import build_refinement
    from ..configuration.plan import plan
    from ..configuration.toml import read_configuration

    configuration = read_configuration(options.config, options.trust)
    notes: list[str] = []
    fit = build_refinement(configuration, warn=notes.append)
    print(plan(configuration, fit, notes, trial=not options.no_trial).text())
    return FINISHED
