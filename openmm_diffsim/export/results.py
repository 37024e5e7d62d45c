"""What is learned, from the folder of a fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import openmm

from ..engine.xml import read_xml
from ..errors import ExportError
from ..units import MOLAR_GAS_CONSTANT
from .model import Model, model_of


def read_results(
    folder: str | PathLike[str],
    state: str | None = None,
    temperature: float | None = None,
    trusted: bool = False,
) -> Model:
    """The Model of a fit: its system.xml, state.xml, and the temperature in summary.json.

    Parameters
    ----------
    folder : the output folder of a fit
    state : name of a state point, where the fit has several: NAME_system.xml
    temperature : K, where the summary does not say it
    trusted : may the XML run code?

    Raises
    ------
    ExportError
        If there is no such state point, no temperature, or nothing to export.
    FileError
        If a file is missing or holds something else, UntrustedError if it holds code.
    """
    folder = Path(folder)
    prefix = _prefix(folder, state)
    system = read_xml(folder / f"{prefix}system.xml", openmm.System, trusted)
    stored = read_xml(folder / f"{prefix}state.xml", openmm.State, trusted)
    if temperature is None:
        temperature = _temperature(folder / "summary.json", state)
    return model_of(system, stored, temperature)


def _prefix(folder: Path, state: str | None) -> str:
    own = sorted(path.name.removesuffix("_system.xml") for path in folder.glob("*_system.xml"))
    if state is not None and state in own:
        return f"{state}_"
    if state is not None or (own and not (folder / "system.xml").exists()):
        raise ExportError(
            f"{folder}: got state {state!r}, expected one of {', '.join(own) or 'none'}",
            got=state,
        )
    return ""


def _temperature(path: Path, state: str | None) -> float:
    """That of the state point in the configuration of the fit, K."""
    try:
        configuration = json.loads(path.read_bytes())["configuration"]
        sections = [s for s in configuration.get("state", []) if state in (None, s.get("name"))]
        own = [s["temperature"] for s in sections[:1] if "temperature" in s]
        kelvin = float((own or [configuration["dynamics"]["temperature"]])[0])
        return kelvin * _unit(configuration)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ExportError(
            f"{path} does not say the temperature; give it in K: --temperature (in Python "
            "temperature=)"
        ) from error


def _unit(configuration: Mapping[str, Any]) -> float:
    """K in one of its temperatures: epsilon / R where it is in reduced units."""
    units = configuration.get("units")
    return units["epsilon"] / MOLAR_GAS_CONSTANT if isinstance(units, Mapping) else 1.0
