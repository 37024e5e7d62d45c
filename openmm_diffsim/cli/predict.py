"""``openmm-diffsim predict``: what a refined potential says of states that were not fitted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import FINISHED, held, trust_option, warn


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser(
        "predict", help="sample further states with a refined potential, beside their data"
    )
    command.add_argument("config", type=Path, metavar="CONFIG.toml")
    command.add_argument(
        "--potential", type=Path, required=True, metavar="DIR", help="output folder of a fit"
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="default: predicted_CONFIG")
    command.add_argument("--steps", type=int, help="MD steps of a state; default ten rounds")
    trust_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predict every target with ``predict = true`` or, where there is none, all."""
    from ..configuration.build import build
    from ..configuration.toml import read_configuration
    from ..refinement.prediction import predict
    from ..report.predictions import write_predictions

    configuration = read_configuration(options.config, options.trust, options.potential)
    folder = options.output or Path(f"predicted_{options.config.stem}")
    section = configuration.refine
    with held(folder):
        made = build(configuration, warn=warn)
        known = _known(made, options.potential)
        asked = made.predicted or tuple(made.to_be_fitted.targets)
        steps = 10 * section.steps if options.steps is None else options.steps
        found = predict(made.potential, asked, steps, section.every, **known)
        write_predictions(found, folder, configuration.raw)
    for each in found:
        print(each.sentence())
    print(f"see {folder}")
    return FINISHED


def _known(made: Any, folder: Path) -> dict[str, Any]:
    """The covariance of a fit, whose parameters the potential has; and frames if it is this one."""
    from ..errors import CheckpointError
    from ..report.parameters import load_covariance, load_parameters

    known: dict[str, Any] = {"covariance": load_covariance(made.potential, folder)}
    checkpoint = folder / "checkpoint.npz"
    if made.fit is None or not made.predicted or not checkpoint.exists():
        return known
    try:
        made.fit.resume(checkpoint)
    except CheckpointError as error:
        warn(f"the frames of that fit are not used: {error}")
        return known
    load_parameters(made.potential, folder)  # of its end: a checkpoint is of the round before
    return known | {"states": made.fit.states}
