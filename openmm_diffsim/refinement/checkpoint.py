"""Checkpoints: written whole or not at all, and refused when damaged or of another fit.

A file is one line that names the format, one line with the SHA-256 of the rest, and a NumPy
archive of plain arrays (no pickle); text travels as bytes in it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CheckpointError
from ..io import atomic_write_bytes, read_arrays
from ..potentials import Potential, set_flat_parameters
from ..samples import Samples
from .identity import differences
from .progress import Progress
from .state import State

Arrays = dict[str, NDArray[Any]]

_FORMAT = b"openmm_diffsim checkpoint 2\n"
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
    buffers: tuple[Tensor, ...] = ()
    priors: tuple[NDArray[np.float64] | None, ...] = ()  # c_0 of each state point


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


def save(path: Path, kept: Kept, potential: Potential, states: Sequence[State]) -> None:
    """Write a checkpoint of a fit.

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
        "states": [state.state_point.serialize() for state in states],
    }
    arrays: Arrays = {"theta": kept.parameters.numpy()}
    if kept.previous is not None:
        arrays["previous"] = kept.previous.numpy()
    for name, buffer in potential.named_buffers():
        arrays[f"buffer/{name}"] = buffer.numpy(force=True)
    arrays |= _flattened("", kept.memory, kept.identity["method"])
    for index, state in enumerate(states):
        if state.prior_mean is not None:
            arrays[f"prior/{index}"] = state.prior_mean
        packed = state.frames.arrays(state.recorded(), path.parent)
        arrays |= {f"state/{index}/{name}": array for name, array in packed.items()}
    write_checkpoint(path, meta, arrays)


def load(
    path: Path, identity: Mapping[str, Any], potential: Potential, states: Sequence[State]
) -> tuple[Kept, list[Samples], list[dict[str, str]]]:
    """What ``save`` wrote of the fit with this identity: nothing is changed yet.

    Returns
    -------
    kept, the frames of each state point, and what each state point serialized

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
        previous = torch.from_numpy(arrays["previous"]) if "previous" in arrays else None
        theta = torch.from_numpy(arrays["theta"])
        progress = Progress.restore(meta["progress"])
        kept = Kept(meta["fingerprint"], progress, theta, previous, _nested(arrays))
        pools = [
            _unpacked(f"state/{index}/", state, potential, arrays, path.parent)
            for index, state in enumerate(states)
        ]
        buffers = [torch.from_numpy(arrays[f"buffer/{n}"]) for n, _ in potential.named_buffers()]
        priors = [
            None if state.prior_mean is None else arrays[f"prior/{index}"]
            for index, state in enumerate(states)
        ]
        contexts = meta["states"]
        if len(contexts) != len(states):
            raise ValueError(f"{len(contexts)} state points")
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} was written by another version of openmm_diffsim: {error!r}",
            path=path,
            reason="version",
        ) from error
    return replace(kept, buffers=tuple(buffers), priors=tuple(priors)), pools, contexts


def restore(
    kept: Kept,
    potential: Potential,
    states: Sequence[State],
    pools: Sequence[Samples],
    contexts: Sequence[dict[str, str]],
) -> None:
    """Give potential and state points what ``load`` found."""
    set_flat_parameters(potential, kept.parameters)
    for (_, buffer), value in zip(potential.named_buffers(), kept.buffers, strict=True):
        buffer.copy_(value)
    for state, prior in zip(states, kept.priors, strict=True):
        state.prior_mean = prior
    for state, pool, context in zip(states, pools, contexts, strict=True):
        last = pool.runs[-1].n_frames
        state.pool = replace(pool, floor=min(Samples.floor, 0.5 * last))
        state.last = state.pool.last_run()
        state.state_point.apply()
        state.state_point.deserialize(context)


def write_checkpoint(path: Path, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Replace the checkpoint at ``path`` atomically.

    Raises
    ------
    CheckpointError
        If it cannot be written (a full disk, say); the old one is then untouched.
    """
    stream = io.BytesIO()
    text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(stream, allow_pickle=False, meta=text, **{f"array/{k}": v for k, v in arrays.items()})
    body = stream.getvalue()
    digest = hashlib.sha256(body).hexdigest().encode() + b"\n"
    try:
        atomic_write_bytes(path, _FORMAT + digest + body)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error.strerror or error}; an older one there "
            "is untouched, and the fit in memory is whole: make room and save again",
            path=path,
            reason=str(error),
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Meta data and arrays of the checkpoint at ``path``.

    Raises
    ------
    CheckpointError
        If there is none, or it is not one of ours, or it is damaged. Nothing is changed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {error.strerror or error}",
            path=path,
            reason="unreadable",
        ) from error
    if not data.startswith(_FORMAT):
        raise CheckpointError(
            f"{path} is not a checkpoint of this version of openmm_diffsim",
            path=path,
            reason="foreign",
        )
    digest, _, body = data[len(_FORMAT) :].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match its content; start the fit anew in "
            "another folder, or restore the file",
            path=path,
            reason="damaged",
        )
    try:
        arrays = read_arrays(body)
        meta = json.loads(arrays.pop("meta").tobytes())
        arrays = {name.removeprefix("array/"): array for name, array in arrays.items()}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} does not hold what a checkpoint holds: {error}", path=path, reason="damaged"
        ) from error
    if not isinstance(meta, dict) or not isinstance(meta.get("fingerprint"), dict):
        raise CheckpointError(
            f"{path} does not say which fit it belongs to", path=path, reason="damaged"
        )
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
