"""Samples as arrays for a file, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FramesError, StatePointError
from ..io.archive import Archive, Arrays, from_data, to_data
from ..observables import Observable
from ..potentials import Potential
from .features import packed, restored
from .recorded import Recorded, Run

_LEARNED = "learned/"


def pack(samples: Recorded, observables: Sequence[Observable], folder: Path) -> Arrays:
    """All that samples are, and the records of these observables; ``folder`` is the file's."""
    runs = [
        [r.temperature, _or_nan(r.pressure), r.n_frames, r.every, r.rms_displacement]
        for r in samples.runs
    ]
    return {
        "settings": np.array([samples.temperature, _or_nan(samples.pressure), samples.floor]),
        "runs": np.array(runs),
        "rest": from_data([run.rest for run in samples.runs]),
        "coefficients": np.array([run.coefficients for run in samples.runs]),
        "volume": samples.volume,
        "rest_energy": samples.rest_energy,
        "potential": from_data(samples.potential.form()),
        "observables": from_data([o.identity() for o in observables]),
        **{f"record/{i}": samples.records[o] for i, o in enumerate(observables)},
        **{_LEARNED + name: array for name, array in packed(samples.learned, folder).items()},
    }


def unpack(
    potential: Potential,
    observables: Sequence[Observable],
    arrays: Mapping[str, NDArray[Any]],
    folder: Path,
) -> dict[str, Any]:
    """The fields of ``Recorded``, from what ``pack`` gave.

    Raises
    ------
    StatePointError
        If they are of another form of potential, or of other observables.
    FramesError
        If the trajectory of a network is gone, or holds other frames.
    """
    _check_form(potential, to_data(arrays["potential"]))
    _check_observables(observables, to_data(arrays["observables"]))
    temperature, pressure, floor = arrays["settings"].tolist()
    own = {k.removeprefix(_LEARNED): a for k, a in arrays.items() if k.startswith(_LEARNED)}
    rests = [tuple((name, code) for name, code in rest) for rest in to_data(arrays["rest"])]
    runs = zip(arrays["coefficients"], arrays["runs"].tolist(), rests, strict=True)
    return {
        "potential": potential,
        "runs": tuple(
            Run(c, t, _or_none(p), int(n), int(every), moved, rest)
            for c, (t, p, n, every, moved), rest in runs
        ),
        "learned": restored(potential, own, folder),
        "volume": arrays["volume"],
        "rest_energy": arrays["rest_energy"],
        "records": {o: arrays[f"record/{i}"] for i, o in enumerate(observables)},
        "temperature": temperature,
        "pressure": _or_none(pressure),
        "floor": floor,
    }


SAMPLES = Archive("samples file", 1, FramesError)


def _check_form(given: Potential, kept: Mapping[str, Any]) -> None:
    form = json.loads(json.dumps(given.form()))
    for key in dict.fromkeys([*kept, *form]):
        if form.get(key) != kept.get(key):
            raise StatePointError(
                f"these samples were made with another potential than {given.name}: its {key} was "
                f"{kept.get(key)}, got {form.get(key)}"
            )


def _check_observables(given: Sequence[Observable], kept: Sequence[Mapping[str, Any]]) -> None:
    if len(kept) != len(given):
        raise StatePointError(f"these are records of {len(kept)} observables, got {len(given)}")
    for observable, identity in zip(given, kept, strict=True):
        if json.loads(json.dumps(observable.identity())) != identity:
            raise StatePointError(
                f"{type(observable).__name__}: what was recorded is {identity}, got "
                f"{observable.identity()}"
            )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
