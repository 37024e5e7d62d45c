"""``openmm-diffsim new``: a commented configuration to start from."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..limits import checked_number, limit_of
from .common import FINISHED

_QUESTIONS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("rdf", "file of the measured g(r)", Path),
    ("length_unit", "unit of r in it, nm or angstrom [nm]", str),
    ("temperature", "temperature, K", float),
    ("topology", "topology of your own System, e.g. a PDB [none: a fluid of particles]", Path),
)
_OF_OWN: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("system", "its System, XML", Path),
    ("atoms", "atoms that the potential acts between, as mdtraj selects them [all]", str),
)
_OF_FLUID: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("mass", "mass of a particle, amu", float),
    ("density", "density, g/cm3", float),
)
_NEEDED = ("rdf", "temperature")
_NUMBERS = {"temperature", "mass", "cutoff", "uncertainty"}


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser(
        "new", help="write a commented configuration to start from; asks for what is not given"
    )
    command.add_argument("config", type=Path, metavar="CONFIG.toml")
    for name, text, kind in (*_QUESTIONS, *_OF_OWN, *_OF_FLUID):
        choices = ("nm", "angstrom") if name == "length_unit" else None
        flag = f"--{name.replace('_', '-')}"
        command.add_argument(flag, type=kind, help=text.partition(" [")[0], choices=choices)
    command.add_argument("--state", type=Path, help="where the System begins, XML of a State")
    command.add_argument("--cutoff", type=float, help="of the potential, nm")
    command.add_argument("--uncertainty", type=float, help="standard error of g(r)")
    command.add_argument("--pressure", type=float, help="measured, bar: a second target")
    command.add_argument("--platform", help="of OpenMM; default CPU")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask for what is missing, if somebody is there to answer, and write the file."""
    from ..configuration.starting import Starting, starting_text

    path: Path = options.config
    if os.path.lexists(path):
        raise ConfigurationError(f"{path} is there already; choose another name, or move it away")
    given = {key: value for key, value in vars(options).items() if value is not None}
    given = {key: given[key] for key in given.keys() & Starting.__dataclass_fields__.keys()}
    if sys.stdin.isatty():
        _ask(given)
    missing = [f"--{name}" for name in _NEEDED if name not in given]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)}: missing; what was measured, and where?")
    for key in _NUMBERS & given.keys():
        given[key] = checked_number(f"--{key}", given[key], ConfigurationError, limit_of(key))
    made = {key: _beside(value, path) for key, value in given.items()}
    text = starting_text(Starting(**made), path.name)
    path.write_text(text, encoding="utf-8")
    print(f"{path}: look through it, then openmm-diffsim check {path}")
    return FINISHED


def _ask(given: dict[str, Any]) -> None:
    """Fill in what was not given; an empty answer leaves it out."""
    _ask_each(_QUESTIONS, given)
    _ask_each(_OF_OWN if "topology" in given else _OF_FLUID, given)


def _ask_each(questions: Any, given: dict[str, Any]) -> None:
    for name, text, kind in questions:
        if name in given:
            continue
        answer = input(f"{text}: ").strip()
        if answer:
            given[name] = kind(answer)


def _beside(value: Any, config: Path) -> Any:
    """A path as the configuration's folder sees it, where it lies below; else as it is."""
    if not isinstance(value, Path):
        return value
    if not value.is_file():
        raise ConfigurationError(f"there is no file {value}", got=value)
    return Path(os.path.relpath(value, config.parent))
