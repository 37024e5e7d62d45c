"""Checkpoints: written whole or not at all, and refused when damaged or of another fit."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CheckpointError, TakenError
from ..io.archive import Archive, Arrays, checksum_of, from_data, to_data
from ..io.lock import Lock
from ..potentials import ParameterPrior, Potential, set_flat_parameters
from ..samples import Samples
from .identity import differences
from .progress import Progress
from .state import State

CHECKPOINT = Archive("checkpoint", 4, CheckpointError)

_SHOWN = 5  # differences that a message names
_TENSOR, _ARRAY = "memory/tensor/", "memory/array/"  # of a method


@dataclass(frozen=True)
class Kept:
    """What a checkpoint keeps of a fit besides its frames."""

    identity: Mapping[str, Any]
    progress: Progress
    parameters: Tensor  # theta
    previous: Tensor | None  # theta of the last accepted round
    memory: Mapping[Any, Any]  # of the method
    buffers: tuple[Tensor, ...]
    priors: tuple[NDArray[np.float64] | None, ...]  # c_0 of each state point
    prior: ParameterPrior | None = None


def check_identity(identity: Mapping[str, Any]) -> None:
    """CheckpointError where something in it is no plain data, before any MD is run for it."""
    try:
        json.dumps(identity)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"an identity() gave what cannot be kept ({error}); expected numbers, text, and lists "
            "and dicts of these",
            reason="identity",
        ) from error


@contextmanager
def held(path: Path, own: Container[str]) -> Iterator[None]:
    """No other process writes a checkpoint there meanwhile; ``own`` are checksums of a fit's own.

    Raises
    ------
    TakenError
        If another process does, or if there is a checkpoint that is not the fit's own.
    CheckpointError
        If nothing can be written in that folder.
    """
    try:
        lock = Lock(path.with_suffix(".lock"), f"the checkpoint {path}")
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error.strerror or error}; choose a folder that "
            "is there and writable",
            path=path,
            reason=str(error),
        ) from error
    with lock:
        if os.path.lexists(path) and checksum_of(path) not in own:
            raise TakenError(
                f"{path} is there already, and this fit did not write it: go on with what it holds "
                "by resume(), move it away, or give another checkpoint=",
                path=path,
            )
        yield


def save(path: Path, kept: Kept, potential: Potential, states: Sequence[State]) -> str:
    """Write a checkpoint of a fit; returns its checksum.

    Raises
    ------
    CheckpointError
        If it cannot be written, if frames are in temporary files, or if the method remembers what
        is no array.
    """
    if any(state.frames.learned.is_temporary for state in states):
        raise CheckpointError(
            f"{path}: the frames of this network are in temporary files; make the "
            "Refinement with checkpoint=, which keeps them beside it",
            path=path,
            reason="frames",
        )
    meta = {
        "fingerprint": kept.identity,
        "progress": kept.progress.state_dict(),
        "states": [state.replicas.texts for state in states],
        "last runs": [1 if s.last is None else len(s.last.runs) for s in states],
    }
    arrays: Arrays = {"meta": from_data(meta), "theta": kept.parameters.numpy()}
    if kept.previous is not None:
        arrays["previous"] = kept.previous.numpy()
    if kept.prior is not None:
        arrays["parameter_prior"] = np.stack([kept.prior.mean, kept.prior.standard_deviation])
    for (name, _), buffer in zip(potential.named_buffers(), kept.buffers, strict=True):
        arrays[f"buffer/{name}"] = buffer.numpy(force=True)
    arrays |= _flattened("", kept.memory, kept.identity["method"])
    for index, (state, prior) in enumerate(zip(states, kept.priors, strict=True)):
        if prior is not None:
            arrays[f"prior/{index}"] = prior
        packed = state.frames.arrays(state.recorded(), path.parent)
        arrays |= {f"state/{index}/{name}": array for name, array in packed.items()}
    return CHECKPOINT.write(path, arrays)


def load(
    path: Path, identity: Mapping[str, Any], potential: Potential, states: Sequence[State]
) -> tuple[Kept, list[Samples], list[tuple[Any, int]]]:
    """What ``save`` wrote of the fit with this identity: nothing is changed yet.

    Returns
    -------
    kept, the frames of each state point, and of each what its replicas serialized and how many runs
    were the last

    Raises
    ------
    CheckpointError
        If there is none, it is damaged, or it is of another fit.
    FramesError
        If frames that lie beside it are gone or are others.
    """
    meta, arrays = read_checkpoint(path)
    different = differences(meta["fingerprint"], json.loads(json.dumps(identity)))
    if different:
        raise CheckpointError(
            f"{path} belongs to another fit: {'; '.join(different[:_SHOWN])}"
            + (f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else "")
            + "; use another output folder, or the original input",
            path=path,
            reason="foreign",
        )
    try:
        pools = [
            _unpacked(f"state/{index}/", state, potential, arrays, path.parent)
            for index, state in enumerate(states)
        ]
        contexts = list(zip(meta["states"], meta["last runs"], strict=True))
        if len(contexts) != len(states) or not all(texts for texts, _ in contexts):
            raise ValueError(f"{len(contexts)} state points")
        kept = Kept(
            meta["fingerprint"],
            Progress.restore(meta["progress"]),
            torch.from_numpy(arrays["theta"]),
            torch.from_numpy(arrays["previous"]) if "previous" in arrays else None,
            _nested(arrays),
            tuple(torch.from_numpy(arrays[f"buffer/{n}"]) for n, _ in potential.named_buffers()),
            tuple(
                None if state.prior_mean is None else arrays[f"prior/{index}"]
                for index, state in enumerate(states)
            ),
            ParameterPrior(*arrays["parameter_prior"]) if "parameter_prior" in arrays else None,
        )
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} was written by another version of openmm_diffsim: {error!r}",
            path=path,
            reason="version",
        ) from error
    return kept, pools, contexts


def restore(
    kept: Kept,
    potential: Potential,
    states: Sequence[State],
    pools: Sequence[Samples],
    contexts: Sequence[tuple[Any, int]],
) -> None:
    """Give potential and state points what ``load`` found."""
    set_flat_parameters(potential, kept.parameters)
    for (_, buffer), value in zip(potential.named_buffers(), kept.buffers, strict=True):
        buffer.copy_(value)
    for state, prior in zip(states, kept.priors, strict=True):
        state.prior_mean = prior
    for state, pool, (texts, n_last) in zip(states, pools, contexts, strict=True):
        state.pool, state.last = pool, pool.last_runs(n_last)
        state.state_point.apply()
        state.replicas.go_on(texts)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Meta data and arrays of the checkpoint at ``path``.

    Raises
    ------
    CheckpointError
        If there is none, or it is not one of ours, or it is damaged. Nothing is changed.
    """
    arrays = CHECKPOINT.read(path)
    try:
        meta = to_data(arrays.pop("meta"))
        if not isinstance(meta["fingerprint"], dict):
            raise ValueError("no fingerprint")
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say which fit it belongs to: {error!r}", path=path, reason="damaged"
        ) from error
    return meta, arrays


def _unpacked(
    prefix: str, state: State, potential: Potential, arrays: Arrays, folder: Path
) -> Samples:
    own = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
    return Samples.from_arrays(potential, state.recorded(), own, folder)


def _flattened(prefix: str, memory: Mapping[Any, Any], method: Mapping[str, Any]) -> Arrays:
    """Nested mappings of arrays and Tensors by their path, which begins with what each is.

    ``method`` is the identity of whose they are.

    Raises
    ------
    CheckpointError
        If there is something else among them, as in the memory of L-BFGS.
    """
    flat: Arrays = {}
    for key, value in memory.items():
        if isinstance(key, str) and ("/" in key or key.isdigit()):
            raise CheckpointError(
                f"{method['class']} keeps {key!r}: expected names without a slash that are no "
                "number, or whole numbers",
                reason="method",
            )
        if isinstance(value, Mapping):
            flat |= _flattened(f"{prefix}{key}/", value, method)
        elif isinstance(value, torch.Tensor):
            flat[f"{_TENSOR}{prefix}{key}"] = value.numpy(force=True)
        elif isinstance(value, np.ndarray | np.generic | int | float) and not _holds_objects(value):
            flat[f"{_ARRAY}{prefix}{key}"] = np.asarray(value)
        elif value is not None:
            raise CheckpointError(
                f"{method.get('optimizer', method['class'])} keeps {key!r}, which is no array: a "
                "fit with it cannot be saved; run it without checkpoint=",
                reason="method",
            )
    return flat


def _holds_objects(value: Any) -> bool:
    return bool(np.asarray(value).dtype.hasobject)


def _nested(arrays: Arrays) -> dict[Any, Any]:
    """Back from what ``_flattened`` gave; whole numbers are keys as such."""
    memory: dict[Any, Any] = {}
    for name, array in arrays.items():
        for prefix in (_TENSOR, _ARRAY):
            if name.startswith(prefix):
                path = [int(k) if k.isdigit() else k for k in name[len(prefix) :].split("/")]
                place = memory
                for key in path[:-1]:
                    place = place.setdefault(key, {})
                place[path[-1]] = torch.from_numpy(array) if prefix == _TENSOR else array
    return memory
