"""What is learned, from the folder of a fit."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

import openmm

from ..engine.xml import read_xml
from ..errors import ExportError
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
    """That of the state point, K: of the first, where none is named."""
    try:
        states = json.loads(path.read_bytes())["states"]
        return float(next(s for s in states if state in (None, s["name"]))["temperature_K"])
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise ExportError(
            f"{path} does not say the temperature; give it in K: --temperature (in Python "
            "temperature=)"
        ) from error
