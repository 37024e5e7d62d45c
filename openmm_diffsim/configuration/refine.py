"""How long a fit runs, by what method, where and where to: [refine] of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..limits import shown
from ..refinement.methods import METHODS, GaussNewtonOptions
from .section import Section

EXECUTORS = ("here", "processes")
_ADDRESS = re.compile(r"(tcp|tls|ucx|inproc|ws|wss)://\S+")  # of a Dask scheduler


@dataclass(frozen=True)
class RefineSection:
    """How long, by what method, where to."""

    method: str
    rounds: int
    equilibration: int | None
    steps: int
    every: int
    seed: int
    output: Path
    largest_step: float | None  # kT
    gauss_newton: GaussNewtonOptions
    options: Mapping[str, float | int] = field(default_factory=dict)  # of any other method
    executor: str = "here"  # or "processes", or the address of a scheduler
    workers: int | None = None  # processes; None: one for each core
    replicas: int = 1  # of each state point
    staleness: int = 0  # rounds that parameters of frames may be behind


def read_refine(section: Section) -> RefineSection:
    """ConfigurationError where a value cannot be."""
    method = section.choice("method", tuple(METHODS), "gauss-newton")
    made = RefineSection(
        method=method,
        rounds=section.integer("rounds", 15),
        equilibration=section.integer("equilibration", None),
        steps=section.integer("steps", 5000),
        every=section.integer("every", 50),
        seed=section.integer("seed", 1),
        output=section.output("output"),
        largest_step=section.number("largest_step", None),
        gauss_newton=_gauss_newton(section, method),
        options=_options(section, method),
        executor=_executor(section),
        workers=section.integer("workers", None, at_least=1),
        replicas=section.integer("replicas", 1, at_least=1),
        staleness=section.integer("staleness", 0),
    )
    if made.steps < 20 * made.every:
        raise section.error(
            "steps",
            f"got steps = {made.steps} and every = {made.every}: only {made.steps // made.every} "
            "frames a round, expected at least 20",
        )
    section.finish()
    return made


def _gauss_newton(refine: Section, method: str) -> GaussNewtonOptions:
    """Each field of the options by its name, checked as its default says."""
    defaults = {field.name: field.default for field in fields(GaussNewtonOptions)}
    return GaussNewtonOptions(**_numbers(refine, "gauss-newton", method, defaults))


def _options(refine: Section, method: str) -> dict[str, Any]:
    """Of the other methods."""
    found: dict[str, Any] = {}
    for name, made in METHODS.items():
        if name != "gauss-newton":
            found |= _numbers(refine, name, method, made.options)
    return found


def _numbers(
    refine: Section, name: str, method: str, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of a table of the method's name, with what is given alone."""
    key = name.replace("-", "_")
    if (section := refine.optional_section(key)) is None:
        return {}
    if name != method:
        raise refine.error(key, f"is for method = {name!r}, got {method!r}")
    read: dict[type, Callable[..., Any]]
    read = {bool: section.flag, int: section.integer, float: section.number}
    made = {option: read[type(value)](option, value) for option, value in defaults.items()}
    section.finish()
    return made


def _executor(section: Section) -> str:
    named: str = section.text("executor", "here")
    if named not in EXECUTORS and not _ADDRESS.fullmatch(named):
        raise section.error(
            "executor",
            f"got {shown(named)}, expected 'here', 'processes', or the address of a scheduler, as "
            "'tcp://host:8786'",
        )
    return named
