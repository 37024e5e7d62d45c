"""The learned energy of recorded frames, for any parameters of the potential.

A pair potential on a spline basis is linear in its coefficients: ``BasisSums`` are all that is
kept. The energy of anything else, a network, is evaluated anew from stored configurations
(``EvaluatedFrames``), in batches: memory is set by the batch, not by the number of frames.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from tqdm import tqdm

from ..errors import FramesError, StatePointError
from ..io import Frames
from ..potentials import NetworkPotential, learned_parameters, parameters_at

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
Self = TypeVar("Self", bound="LearnedEnergy")

_SHOWN_AFTER = 3.0  # seconds, until an evaluation shows its progress
_SAVED_EVERY = 5.0  # seconds, while an evaluation goes on
_BATCH_PARTICLES = 500  # in a batch of frames: more only take time for new memory
_BATCH_PARTICLES_GPU = 20_000
_KEPT_BYTES = 2**26  # of gradients of single frames, for energies and for virials each
_REMEMBERED = 256  # parameter sets whose energies are kept, 8 bytes per frame each


class LearnedEnergy(Protocol):
    """Energy and virial of the learned potential in each frame.

    ``c`` are the potential's ``coefficients``: a Tensor [pairs of types, coefficients], or
    [1, parameters] of a network.
    """

    def __len__(self) -> int: ...

    def energy(self, c: Tensor) -> Tensor:
        """U, kJ/mol, [frames], with a graph to ``c``."""

    def virial(self, c: Tensor) -> Tensor:
        """W = -3 V dU/dV, moving whole molecules, kJ/mol, [frames], with a graph to ``c``."""

    def response(self, kind: str, c: Tensor, weights: Array) -> Array:
        """sum_n w_sn dA_n/dc for each row of weights [sets, frames], A the "energy" or "virial".

        Returns [sets, coefficients].
        """

    def linear(self, c: Tensor, virials: bool = True) -> BasisSums:
        """The same to first order about ``c``: as if its energy were linear.

        ``virials=False`` leaves out W, where nobody asks for it.
        """

    def select(self: Self, keep: Mask) -> Self:
        """Those frames alone."""

    def pooled(self: Self, others: Sequence[Self]) -> Self:
        """These frames and those of all others."""

    def arrays(self, folder: Path) -> dict[str, NDArray[Any]]:
        """What a file in that folder has to hold."""


@dataclass(frozen=True)
class BasisSums:
    """U = U_0 + c . S and W = W_0 + c . S': what is kept of frames of a pair potential."""

    basis: Array  # S, [frames, pairs of types, coefficients]
    virials: Array  # S', the same shape
    constant: Array | None = None  # U_0, [frames], kJ/mol; None: zero
    constant_virial: Array | None = None  # W_0, [frames], kJ/mol

    def __len__(self) -> int:
        return len(self.basis)

    @property
    def flat(self) -> Array:
        """S as [frames, pairs of types * coefficients]."""
        return self.basis.reshape(len(self.basis), -1)

    def energy(self, c: Tensor) -> Tensor:
        """U, kJ/mol, [frames]."""
        return _plus(self.constant, torch.from_numpy(self.flat) @ c.reshape(-1))

    def virial(self, c: Tensor) -> Tensor:
        """W, kJ/mol, [frames]."""
        flat = torch.from_numpy(self.virials.reshape(len(self), -1))
        return _plus(self.constant_virial, flat @ c.reshape(-1))

    def response(self, kind: str, c: Tensor, weights: Array) -> Array:
        """sum_n w_sn S_n, or S'_n, [sets, pairs of types * coefficients]."""
        sums = self.basis if kind == "energy" else self.virials
        return weights @ sums.reshape(len(self), -1)

    def linear(self, c: Tensor, virials: bool = True) -> BasisSums:
        """These sums: they are linear."""
        return self

    def select(self, keep: Mask) -> BasisSums:
        """Those frames alone."""
        return BasisSums(
            self.basis[keep],
            self.virials[keep],
            None if self.constant is None else self.constant[keep],
            None if self.constant_virial is None else self.constant_virial[keep],
        )

    def pooled(self, others: Sequence[BasisSums]) -> BasisSums:
        """These frames and those of all others."""
        parts = [self, *others]
        return BasisSums(
            np.concatenate([part.basis for part in parts]),
            np.concatenate([part.virials for part in parts]),
            _joined([part.constant for part in parts], parts),
            _joined([part.constant_virial for part in parts], parts),
        )

    def arrays(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Both sums."""
        return {"basis_sums": self.basis, "virial_sums": self.virials}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> BasisSums:
        """From what ``arrays`` gave."""
        return BasisSums(arrays["basis_sums"], arrays["virial_sums"])


@dataclass(frozen=True)
class NetworkParticles:
    """The particles that a network acts on."""

    atoms: IntArray  # their indices in the System
    types: IntArray  # the type of each
    molecule_of: IntArray  # [particles of the System]


@dataclass(frozen=True, eq=False)
class StoredRun:
    """The configurations of one run, with the energies found so far.

    Energies are remembered for each parameter set, NaN where a frame was not evaluated, so what an
    interrupted evaluation found is not lost. Where the frames lie in a file of the user's, that of
    the evaluation in progress lies beside it and outlives the process.
    """

    frames: Frames
    particles: NetworkParticles
    found: OrderedDict[tuple[str, str], Array] = field(default_factory=OrderedDict)

    @property
    def is_temporary(self) -> bool:
        """Does the file go with this object?"""
        return self.frames.temporary is not None

    def values(self, kind: str, key: str) -> Array:
        """What is known of "energy" or "virial" for one parameter set, [frames of the file]."""
        if (kind, key) not in self.found:
            self.found[kind, key] = self._unfinished(kind, key)
            if len(self.found) > _REMEMBERED:
                self.found.popitem(last=False)
        self.found.move_to_end((kind, key))
        return self.found[kind, key]

    def save_progress(self, kind: str, key: str) -> None:
        """Leave behind what an evaluation has found so far."""
        if not self.is_temporary:
            header = self._header(kind, key)
            self._progress_file(kind).write_bytes(header + self.found[kind, key].tobytes())

    def finish(self, kind: str) -> None:
        """An evaluation is complete: nothing need be left behind."""
        if not self.is_temporary:
            self._progress_file(kind).unlink(missing_ok=True)

    def _unfinished(self, kind: str, key: str) -> Array:
        fresh = np.full(len(self.frames), np.nan)
        path = self._progress_file(kind)
        if self.is_temporary or not path.exists():
            return fresh
        data = path.read_bytes()
        if data[:32] != self._header(kind, key):
            return fresh
        saved = np.frombuffer(data[32:], dtype=np.float64)
        return saved.copy() if saved.shape == fresh.shape else fresh

    def _header(self, kind: str, key: str) -> bytes:
        """What was evaluated: other frames may have been written to the file since."""
        return hashlib.sha256(f"{kind} {key} {self.frames.mark}".encode()).digest()

    def _progress_file(self, kind: str) -> Path:
        return self.frames.path.with_suffix(f".{kind}.partial")


class KeptGradients:
    """dA/dtheta of single frames, at the parameters that were evaluated last, up to some memory."""

    def __init__(self) -> None:
        self._key: dict[str, str] = {}
        self._found: dict[str, dict[tuple[StoredRun, int], Array]] = {}

    def of(self, kind: str, key: str) -> dict[tuple[StoredRun, int], Array]:
        """Those of "energy" or "virial" at one parameter set; those at any other are dropped."""
        if self._key.get(kind) != key:
            self._key[kind], self._found[kind] = key, {}
        return self._found[kind]


@dataclass(frozen=True, eq=False)
class EvaluatedFrames:
    """Energies of a network, evaluated from stored configurations when they are asked for.

    Forward, no graph is kept: dL/dU_n of all frames comes first, then each batch is evaluated once
    more and differentiated with these weights. But where a batch is a single frame, and as far as
    the memory for it goes, its gradient is taken at once and waits for its weight.

    Parameters
    ----------
    potential : NetworkPotential
    runs : with the indices of the frames that count, ascending, int [frames]
    batch : int, optional
        Frames evaluated at once. Default: as many as hold 500 particles, or 20000 on a GPU.
    """

    potential: NetworkPotential
    runs: tuple[tuple[StoredRun, IntArray], ...]
    batch: int | None = None
    progress: bool = True
    kept: KeptGradients = field(default_factory=KeptGradients)

    def __len__(self) -> int:
        return sum(len(indices) for _, indices in self.runs)

    def energy(self, c: Tensor) -> Tensor:
        """U, kJ/mol, [frames], with a graph to ``c``."""
        return cast(Tensor, _Evaluated.apply(self, "energy", c))  # type: ignore[no-untyped-call]

    def virial(self, c: Tensor) -> Tensor:
        """W, kJ/mol, [frames], with a graph to ``c``."""
        return cast(Tensor, _Evaluated.apply(self, "virial", c))  # type: ignore[no-untyped-call]

    def response(self, kind: str, c: Tensor, weights: Array) -> Array:
        """sum_n w_sn dA_n/dc, [sets, parameters]; each frame is differentiated once."""
        total = np.zeros((len(weights), c.numel()))
        for n, slope in self._slopes(kind, c):
            total += weights[:, n, None] * slope
        return total

    def linear(self, c: Tensor, virials: bool = True) -> BasisSums:
        """To first order about ``c``. Its arrays hold frames times parameters numbers."""
        flat = c.detach().reshape(-1)
        kinds = ("energy", "virial") if virials else ("energy",)
        slopes = [np.array([slope for _, slope in self._slopes(kind, c)]) for kind in kinds]
        constants = [
            self.evaluate(kind, flat) - slope @ flat.numpy()
            for kind, slope in zip(kinds, slopes, strict=True)
        ]
        if not virials:
            slopes.append(np.full((len(self), 1), np.nan))
            constants.append(np.full(len(self), np.nan))
        return BasisSums(slopes[0][:, None], slopes[1][:, None], *constants)

    def _slopes(self, kind: str, c: Tensor) -> Iterator[tuple[int, Array]]:
        with parameters_at(self.potential, c.detach().reshape(-1)):
            for where, x, boxes, particles in self._batches("gradients", 1):
                value = self._compute(kind, x, boxes, particles, differentiable=True)
                yield where.start, self._pull_back(value, torch.ones(1)).numpy()

    def select(self, keep: Mask) -> EvaluatedFrames:
        """Those frames alone."""
        parts = np.split(keep, np.cumsum([len(indices) for _, indices in self.runs])[:-1])
        runs = [(run, i[part]) for (run, i), part in zip(self.runs, parts, strict=True)]
        return replace(self, runs=tuple((run, i) for run, i in runs if len(i)))

    def pooled(self, others: Sequence[EvaluatedFrames]) -> EvaluatedFrames:
        """These frames and those of all others."""
        return replace(self, runs=tuple(run for part in (self, *others) for run in part.runs))

    @property
    def files(self) -> list[Path]:
        """Where the frames are, run by run."""
        return [run.frames.path for run, _ in self.runs]

    def arrays(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Where the frames are, seen from ``folder`` too, which of them count, the particles."""
        arrays: dict[str, NDArray[Any]] = {"n_files": np.array(len(self.runs))}
        for k, (run, indices) in enumerate(self.runs):
            if run.is_temporary:
                raise StatePointError(
                    "the frames of these samples are in a temporary file, which a saved file "
                    "cannot refer to: name one with sample(trajectory=...)"
                )
            path = run.frames.path.resolve()
            arrays |= {
                f"file/{k}/path": _as_array(str(path)),
                f"file/{k}/relative": _as_array(os.path.relpath(path, folder.resolve())),
                f"file/{k}/mark": _as_array(run.frames.mark),
                f"file/{k}/n_frames": np.array(len(run.frames)),
                f"file/{k}/indices": indices,
                f"file/{k}/atoms": run.particles.atoms,
                f"file/{k}/types": run.particles.types,
                f"file/{k}/molecule_of": run.particles.molecule_of,
            }
            if run.frames.boxes is not None:
                arrays[f"file/{k}/boxes"] = run.frames.boxes
        return arrays

    @staticmethod
    def from_arrays(
        potential: NetworkPotential, arrays: Mapping[str, NDArray[Any]], folder: Path
    ) -> EvaluatedFrames:
        """From what ``arrays`` gave; FramesError where a file is gone or has other frames.

        Frames are looked for where they lay seen from the folder, which may have moved together
        with them, and then where they were.
        """
        runs = []
        for k in range(int(arrays["n_files"])):
            path, relative, mark = (
                arrays[f"file/{k}/{name}"].tobytes().decode()
                for name in ("path", "relative", "mark")
            )
            boxes = arrays.get(f"file/{k}/boxes")
            moved = folder / relative
            found = moved if moved.exists() else Path(path)
            frames = Frames(found, int(arrays[f"file/{k}/n_frames"]), boxes)
            if frames.mark != mark:
                raise FramesError(
                    f"{found} holds other frames than these samples were made of: it was "
                    "overwritten by another run"
                )
            particles = NetworkParticles(
                *(arrays[f"file/{k}/{name}"] for name in ("atoms", "types", "molecule_of"))
            )
            runs.append((StoredRun(frames, particles), arrays[f"file/{k}/indices"]))
        return EvaluatedFrames(potential, tuple(runs))

    def evaluate(self, kind: str, theta: Tensor, differentiable: bool = False) -> Array:
        """ "energy" or "virial" of every frame, kJ/mol, [frames]; only what is not known yet.

        ``differentiable``: ``gradient`` will be asked for.
        """
        key = _key(theta)
        known = [run.values(kind, key) for run, _ in self.runs]
        kept = self.kept.of(kind, key) if differentiable else {}
        most = _KEPT_BYTES // theta.detach().numpy().nbytes
        saved = time.monotonic()
        with parameters_at(self.potential, theta.detach()):
            for k, indices, x, boxes in self._missing(kind, known):
                run = self.runs[k][0]
                keep = differentiable and len(indices) == 1 and len(kept) < most
                try:
                    with torch.set_grad_enabled(keep):
                        value = self._compute(kind, x, boxes, run.particles, keep)
                    if keep:
                        slope = self._pull_back(value, torch.ones(1)).numpy()
                        kept[run, int(indices[0])] = slope
                except BaseException:  # an interrupt too
                    run.save_progress(kind, key)
                    raise
                known[k][indices] = value.double().numpy(force=True)
                if time.monotonic() - saved > _SAVED_EVERY:
                    run.save_progress(kind, key)
                    saved = time.monotonic()
        for run, _ in self.runs:
            run.finish(kind)
        pairs = zip(known, self.runs, strict=True)
        return np.concatenate([values[indices] for values, (_, indices) in pairs])

    def gradient(self, kind: str, theta: Tensor, weights: Array) -> Tensor:
        """sum_n w_n dA_n/dtheta, A "energy" or "virial", [parameters]."""
        total = torch.zeros_like(theta)
        kept = self.kept.of(kind, _key(theta))
        frames = [(run, int(i)) for run, indices in self.runs for i in indices] if kept else []
        for n, frame in enumerate(frames):
            if frame in kept:
                total += weights[n] * torch.from_numpy(kept[frame])
        unknown = np.array([frame not in kept for frame in frames] or [True] * len(self))
        counts = unknown & (weights != 0)
        counting, weights = self.select(counts), weights[counts]
        with parameters_at(self.potential, theta.detach()):
            for where, x, boxes, particles in counting._batches("gradient"):
                value = self._compute(kind, x, boxes, particles, differentiable=True)
                total += self._pull_back(value, torch.from_numpy(weights[where]))
        return total

    def _pull_back(self, value: Tensor, weights: Tensor) -> Tensor:
        """sum_n w_n dA_n/dtheta of a batch, [parameters]."""
        parameters = learned_parameters(self.potential)
        parts = torch.autograd.grad(value, parameters, weights.to(value), allow_unused=True)
        flat = [
            torch.zeros(p.numel(), dtype=torch.float64)
            if g is None
            else g.reshape(-1).double().cpu()
            for g, p in zip(parts, parameters, strict=True)
        ]
        return torch.cat(flat)

    def _compute(
        self,
        kind: str,
        positions: Array,
        boxes: Array | None,
        particles: NetworkParticles,
        differentiable: bool = False,
    ) -> Tensor:
        """ "energy" or "virial" of a batch, [frames]."""
        like = learned_parameters(self.potential)[0]  # its precision and device
        types = torch.from_numpy(particles.types).to(like.device)
        x = torch.from_numpy(positions[:, particles.atoms]).to(like)
        cells = None if boxes is None else torch.from_numpy(boxes).to(like)
        if kind == "energy":
            return self.potential.energies(x, cells, types)
        if cells is None:
            raise StatePointError("a virial needs a periodic box, and these frames have none")
        centres = torch.from_numpy(_centres(positions, particles)).to(like)
        with torch.enable_grad():
            scale = torch.ones(len(x), dtype=x.dtype, device=x.device, requires_grad=True)
            moved = x + (scale[:, None, None] - 1) * centres
            energy = self.potential.energies(moved, scale[:, None, None] * cells, types).sum()
            (slope,) = torch.autograd.grad(energy, scale, create_graph=differentiable)
        return -slope

    def _missing(
        self, kind: str, known: Sequence[Array]
    ) -> Iterator[tuple[int, IntArray, Array, Array | None]]:
        """Batches of frames without a value: run, indices, positions and boxes."""
        missing = [
            indices[np.isnan(values[indices])]
            for values, (_, indices) in zip(known, self.runs, strict=True)
        ]
        with self._bar(kind, sum(map(len, missing))) as bar:
            for k, indices in enumerate(missing):
                run = self.runs[k][0]
                for some in _chunks(indices, self._size(run)):
                    yield k, some, *run.frames.read(some)
                    bar.update(len(some))

    def _batches(
        self, name: str, size: int | None = None
    ) -> Iterator[tuple[slice, Array, Array | None, NetworkParticles]]:
        """All frames: where they are among all, positions, boxes and particles."""
        start = 0
        with self._bar(name, len(self)) as bar:
            for run, indices in self.runs:
                for some in _chunks(indices, size or self._size(run)):
                    where = slice(start, start + len(some))
                    yield where, *run.frames.read(some), run.particles
                    start = where.stop
                    bar.update(len(some))

    def _size(self, run: StoredRun) -> int:
        on_processor = learned_parameters(self.potential)[0].device.type == "cpu"
        particles = _BATCH_PARTICLES if on_processor else _BATCH_PARTICLES_GPU
        return self.batch or max(1, particles // max(1, len(run.particles.atoms)))

    def _bar(self, name: str, total: int) -> Any:
        return tqdm(
            total=total,
            desc=f"{self.potential.name}, {name}",
            unit="frame",
            delay=_SHOWN_AFTER,
            disable=not self.progress,
            leave=False,
        )


class _Evaluated(torch.autograd.Function):
    """A value of every frame as a function of the parameters."""

    @staticmethod
    def forward(ctx: Any, frames: EvaluatedFrames, kind: str, c: Tensor) -> Tensor:
        ctx.frames, ctx.kind = frames, kind
        ctx.save_for_backward(c)
        theta = c.detach().reshape(-1)
        return torch.from_numpy(frames.evaluate(kind, theta, ctx.needs_input_grad[2]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[None, None, Tensor]:
        (c,) = ctx.saved_tensors
        with torch.enable_grad():
            theta = ctx.frames.gradient(ctx.kind, c.detach().reshape(-1), w.numpy())
        return None, None, theta.reshape(c.shape)


def _key(theta: Tensor) -> str:
    return hashlib.sha256(theta.detach().numpy().tobytes()).hexdigest()


def _as_array(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _joined(constants: Sequence[Array | None], parts: Sequence[BasisSums]) -> Array | None:
    if all(constant is None for constant in constants):
        return None
    pairs = zip(constants, parts, strict=True)
    return np.concatenate([np.zeros(len(part)) if c is None else c for c, part in pairs])


def _plus(constant: Array | None, value: Tensor) -> Tensor:
    return value if constant is None else torch.from_numpy(constant) + value


def _centres(positions: Array, particles: NetworkParticles) -> Array:
    """Centre (the mean) of the molecule of each of the network's particles, nm."""
    molecules = particles.molecule_of
    count = np.bincount(molecules)
    if count.max() == 1:
        return positions[:, particles.atoms]
    sums = np.zeros((len(positions), len(count), 3))
    for frame, x in zip(sums, positions, strict=True):
        np.add.at(frame, molecules, x)
    return np.asarray((sums / count[:, None])[:, molecules[particles.atoms]])


def _chunks(indices: IntArray, size: int) -> Iterator[IntArray]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
