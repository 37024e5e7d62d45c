"""Samples as arrays for a file, and back."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FramesError, StatePointError
from ..io import atomic_write_bytes, read_arrays
from ..observables import Observable
from ..potentials import Potential
from .features import packed, restored
from .recorded import Recorded, Run

Arrays = dict[str, NDArray[Any]]

_LEARNED = "learned/"
_DIGITS = 64  # of a SHA-256


def pack(samples: Recorded, observables: Sequence[Observable], folder: Path) -> Arrays:
    """All that samples are, and the records of these observables; ``folder`` is the file's."""
    runs = [
        [r.temperature, _or_nan(r.pressure), r.n_frames, r.every, r.rms_displacement]
        for r in samples.runs
    ]
    return {
        "settings": np.array([samples.temperature, _or_nan(samples.pressure), samples.floor]),
        "runs": np.array(runs),
        "coefficients": np.array([run.coefficients for run in samples.runs]),
        "volume": samples.volume,
        "rest_energy": samples.rest_energy,
        "potential": _text(samples.potential.form()),
        "observables": _text([o.identity() for o in observables]),
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
    _check_form(potential, json.loads(arrays["potential"].tobytes()))
    _check_observables(observables, json.loads(arrays["observables"].tobytes()))
    temperature, pressure, floor = arrays["settings"].tolist()
    own = {k.removeprefix(_LEARNED): a for k, a in arrays.items() if k.startswith(_LEARNED)}
    runs = zip(arrays["coefficients"], arrays["runs"].tolist(), strict=True)
    return {
        "potential": potential,
        "runs": tuple(
            Run(c, t, _or_none(p), int(n), int(every), moved) for c, (t, p, n, every, moved) in runs
        ),
        "learned": restored(potential, own, folder),
        "volume": arrays["volume"],
        "rest_energy": arrays["rest_energy"],
        "records": {o: arrays[f"record/{i}"] for i, o in enumerate(observables)},
        "temperature": temperature,
        "pressure": _or_none(pressure),
        "floor": floor,
    }


def write(path: Path, arrays: Arrays) -> None:
    """Arrays as an .npz file, whole or not at all; its zip comment is a checksum of all bytes."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    # The last two bytes of a zip file are the length of its comment.
    content = stream.getvalue()[:-2] + _DIGITS.to_bytes(2, "little")
    atomic_write_bytes(path, content + _checksum(content))


def read(path: Path) -> Arrays:
    """What ``write`` wrote.

    Raises
    ------
    FramesError
        If the file cannot be read, or any of its bytes is not what was written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FramesError(f"cannot read samples from {path}: {error}") from error
    if data[-_DIGITS:] != _checksum(data[:-_DIGITS]):
        raise FramesError(
            f"{path} is damaged, or holds no samples: it does not end in the checksum of its "
            "content; restore the file, or sample again"
        )
    try:
        return read_arrays(data)
    except ValueError as error:
        raise FramesError(f"{path} holds no samples: {error}") from error


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


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


def _text(data: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(data).encode(), dtype=np.uint8)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
