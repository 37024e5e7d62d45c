"""Energies of a potential that is linear in nothing, evaluated anew from stored configurations.

Memory is set by a batch of frames, not by their number.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from tqdm import tqdm

from ..errors import FramesError, StatePointError
from ..io import Frames
from ..io.archive import from_text, to_text
from ..potentials import call_at
from ..statistics.molecules import molecule_centres
from .features import RESTORE, Features
from .stored_run import KeptGradients, NetworkParticles, StoredRun

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

_SHOWN_AFTER = 3.0  # seconds, until an evaluation shows its progress
_SAVED_EVERY = 5.0  # seconds, while an evaluation goes on
_BATCH_PARTICLES = 500  # in a batch of frames: more only take time for new memory
_BATCH_PARTICLES_GPU = 20_000
_shows_bars = True


@dataclass(frozen=True, eq=False)
class EvaluatedFrames:
    """Energies of a network, evaluated from stored configurations when they are asked for.

    Forward, no graph is kept: dL/dU_n of all frames comes first, then each batch is evaluated once
    more and differentiated with these weights. But where a batch is a single frame, and as far as
    the memory for it goes, its gradient is taken at once and waits for its weight.

    Parameters
    ----------
    potential : Potential
        With a method ``energies`` of positions, boxes and types; its coefficients are its
        parameters.
    runs : with the indices of the frames that count, ascending, int [frames]
    batch : int, optional
        Frames evaluated at once. Default: as many as hold 500 particles, or 20000 on a GPU.
    """

    potential: Any
    runs: tuple[tuple[StoredRun, IntArray], ...]
    batch: int | None = None
    kept: KeptGradients = field(default_factory=KeptGradients)

    kind = "frames"

    def __len__(self) -> int:
        return sum(len(indices) for _, indices in self.runs)

    def energy(self, c: Tensor) -> Tensor:
        """U, kJ/mol, [frames], with a graph to ``c``."""
        return cast(Tensor, _Evaluated.apply(self, "energy", c))  # type: ignore[no-untyped-call]

    def virial(self, c: Tensor) -> Tensor:
        """W, kJ/mol, [frames], with a graph to ``c``."""
        return cast(Tensor, _Evaluated.apply(self, "virial", c))  # type: ignore[no-untyped-call]

    def response(self, quantity: str, c: Tensor, weights: Array) -> Array:
        """sum_n w_sn dA_n/dc, [sets, parameters]; each frame is differentiated once."""
        total = np.zeros((len(weights), c.numel()))
        for n, slope in self._slopes(quantity, c):
            total += weights[:, n, None] * slope
        return total

    def linear(self, c: Tensor, virials: bool = True) -> Features:
        """To first order about ``c``. Its arrays hold frames times parameters numbers."""
        flat = c.detach()
        quantities = ("energy", "virial") if virials else ("energy",)
        slopes = [np.array([slope for _, slope in self._slopes(q, c)]) for q in quantities]
        constants = [
            self.evaluate(quantity, flat) - slope @ flat.numpy()
            for quantity, slope in zip(quantities, slopes, strict=True)
        ]
        if not virials:
            slopes.append(np.full((len(self), 1), np.nan))
            constants.append(np.full(len(self), np.nan))
        return Features(*slopes, *constants)

    def _slopes(self, quantity: str, c: Tensor) -> Iterator[tuple[int, Array]]:
        theta = c.detach().clone().requires_grad_(True)
        for where, x, boxes, particles in self._batches("gradients", 1):
            value = self._compute(quantity, theta, x, boxes, particles)
            yield where.start, _pull_back(value, theta, torch.ones(1)).numpy()

    def select(self, keep: Mask) -> EvaluatedFrames:
        """Those frames alone."""
        parts = np.split(keep, np.cumsum([len(indices) for _, indices in self.runs])[:-1])
        runs = [(run, i[part]) for (run, i), part in zip(self.runs, parts, strict=True)]
        return replace(self, runs=tuple((run, i) for run, i in runs if len(i)))

    def pooled(self, others: Sequence[EvaluatedFrames]) -> EvaluatedFrames:
        """These frames and those of all others."""
        return replace(self, runs=tuple(run for part in (self, *others) for run in part.runs))

    def files(self) -> list[Path]:
        """Where the frames are, run by run."""
        return [run.frames.path for run, _ in self.runs if not run.is_temporary]

    def keep(self) -> None:
        """Files leave the temporary folder of a round."""
        for run, _ in self.runs:
            run.frames.keep()

    @property
    def is_temporary(self) -> bool:
        """Is any of the files a temporary one?"""
        return any(run.is_temporary for run, _ in self.runs)

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
                f"file/{k}/path": from_text(str(path)),
                f"file/{k}/relative": from_text(os.path.relpath(path, folder.resolve())),
                f"file/{k}/mark": from_text(run.frames.mark),
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
    def restore(
        potential: Any, arrays: Mapping[str, NDArray[Any]], folder: Path
    ) -> EvaluatedFrames:
        """From what ``arrays`` gave; FramesError where a file is gone or has other frames.

        Frames are looked for where they lay seen from the folder, which may have moved together
        with them, and then where they were.
        """
        runs = []
        for k in range(int(arrays["n_files"])):
            path, relative, mark = (
                to_text(arrays[f"file/{k}/{name}"]) for name in ("path", "relative", "mark")
            )
            boxes = arrays.get(f"file/{k}/boxes")
            moved = folder / relative
            found = moved if moved.exists() else Path(path)
            frames = Frames(found, int(arrays[f"file/{k}/n_frames"]), boxes)
            if frames.mark != mark:
                raise FramesError(
                    f"{found} holds other frames than these samples were made of: it was damaged, "
                    "or overwritten by another run"
                )
            particles = NetworkParticles(
                *(arrays[f"file/{k}/{name}"] for name in ("atoms", "types", "molecule_of"))
            )
            runs.append((StoredRun(frames, particles), arrays[f"file/{k}/indices"]))
        return EvaluatedFrames(potential, tuple(runs))

    def evaluate(self, quantity: str, theta: Tensor, differentiable: bool = False) -> Array:
        """ "energy" or "virial" of every frame, kJ/mol, [frames]; only what is not known yet.

        ``differentiable``: ``gradient`` will be asked for.
        """
        key = _key(theta)
        known = [run.values(quantity, key) for run, _ in self.runs]
        saved = time.monotonic()
        for k, indices, x, boxes in self._missing(quantity, known):
            run = self.runs[k][0]
            frame = run, int(indices[0])
            alone = differentiable and len(indices) == 1
            place = self.kept.place(quantity, key, frame, theta.numel()) if alone else None
            leaf = theta.detach().clone().requires_grad_(place is not None)
            try:
                value = self._compute(quantity, leaf, x, boxes, run.particles)
                if place is not None:
                    place[:] = _pull_back(value, leaf, torch.ones(1)).numpy()
                    self.kept.of(quantity, key)[frame] = place
            except BaseException:  # an interrupt too
                run.save_progress(quantity, key)
                raise
            known[k][indices] = value.double().numpy(force=True)
            if time.monotonic() - saved > _SAVED_EVERY:
                run.save_progress(quantity, key)
                saved = time.monotonic()
        for run, _ in self.runs:
            run.finish(quantity)
        pairs = zip(known, self.runs, strict=True)
        return np.concatenate([values[indices] for values, (_, indices) in pairs])

    def gradient(self, quantity: str, theta: Tensor, weights: Array) -> Tensor:
        """sum_n w_n dA_n/dtheta, A "energy" or "virial", [parameters]."""
        total = torch.zeros_like(theta)
        kept = self.kept.of(quantity, _key(theta))
        slopes = [kept.get((run, int(i))) for run, indices in self.runs for i in indices]
        for weight, slope in zip(weights, slopes, strict=True):
            if slope is not None:
                total += weight * torch.from_numpy(slope)
        counts = np.array([slope is None for slope in slopes], dtype=bool) & (weights != 0)
        counting, weights = self.select(counts), weights[counts]
        leaf = theta.detach().clone().requires_grad_(True)
        for where, x, boxes, particles in counting._batches("gradient"):
            value = self._compute(quantity, leaf, x, boxes, particles)
            total += _pull_back(value, leaf, torch.from_numpy(weights[where]))
        return total

    def _compute(
        self,
        quantity: str,
        theta: Tensor,
        positions: Array,
        boxes: Array | None,
        particles: NetworkParticles,
    ) -> Tensor:
        """ "energy" or "virial" of a batch, [frames], with a graph to theta if that wants one."""
        like = self._like()
        types = torch.from_numpy(particles.types).to(like.device)
        x = torch.from_numpy(positions[:, particles.atoms]).to(like)
        cells = None if boxes is None else torch.from_numpy(boxes).to(like)
        differentiable = theta.requires_grad
        if quantity == "energy":
            with torch.set_grad_enabled(differentiable):
                energies: Tensor = call_at(self.potential, theta, "energies", x, cells, types)
            return energies
        if cells is None:
            raise StatePointError("a virial needs a periodic box, and these frames have none")
        centres = torch.from_numpy(_centres(positions, particles)).to(like)
        with torch.enable_grad():
            scale = torch.ones(len(x), dtype=x.dtype, device=x.device, requires_grad=True)
            moved = x + (scale[:, None, None] - 1) * centres
            stretched = scale[:, None, None] * cells
            energy = call_at(self.potential, theta, "energies", moved, stretched, types).sum()
            (slope,) = torch.autograd.grad(energy, scale, create_graph=differentiable)
            return -slope

    def _like(self) -> Tensor:
        """A tensor of the network's precision, where that is."""
        return next(self.potential.parameters(), torch.zeros(0, dtype=torch.float64))

    def _missing(
        self, quantity: str, known: Sequence[Array]
    ) -> Iterator[tuple[int, IntArray, Array, Array | None]]:
        """Batches of frames without a value: run, indices, positions and boxes."""
        missing = [
            indices[np.isnan(values[indices])]
            for values, (_, indices) in zip(known, self.runs, strict=True)
        ]
        with self._bar(quantity, sum(map(len, missing))) as bar:
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
        on_processor = self._like().device.type == "cpu"
        particles = _BATCH_PARTICLES if on_processor else _BATCH_PARTICLES_GPU
        return self.batch or max(1, particles // max(1, len(run.particles.atoms)))

    def _bar(self, name: str, total: int) -> Any:
        return tqdm(
            total=total,
            desc=f"{self.potential.name}, {name}",
            unit="frame",
            delay=_SHOWN_AFTER,
            disable=not _shows_bars,
            leave=False,
        )


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Do evaluations show their progress meanwhile?"""
    global _shows_bars
    before, _shows_bars = _shows_bars, shown
    try:
        yield
    finally:
        _shows_bars = before


class _Evaluated(torch.autograd.Function):
    """A value of every frame as a function of the parameters."""

    @staticmethod
    def forward(ctx: Any, frames: EvaluatedFrames, quantity: str, c: Tensor) -> Tensor:
        ctx.frames, ctx.quantity = frames, quantity
        ctx.save_for_backward(c)
        return torch.from_numpy(frames.evaluate(quantity, c.detach(), ctx.needs_input_grad[2]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[None, None, Tensor]:
        (c,) = ctx.saved_tensors
        with torch.enable_grad():
            theta = ctx.frames.gradient(ctx.quantity, c.detach(), w.numpy())
        return None, None, theta


RESTORE["frames"] = EvaluatedFrames.restore


def _pull_back(value: Tensor, theta: Tensor, weights: Tensor) -> Tensor:
    """sum_n w_n dA_n/dtheta of a batch, [parameters]."""
    (slope,) = torch.autograd.grad(value, theta, weights.to(value), allow_unused=True)
    return torch.zeros_like(theta) if slope is None else slope


def _key(theta: Tensor) -> str:
    return hashlib.sha256(theta.detach().numpy().tobytes()).hexdigest()


def _centres(positions: Array, particles: NetworkParticles) -> Array:
    """Centre (the mean) of the molecule of each of the network's particles, nm."""
    molecules = particles.molecule_of
    if len(molecules) == molecules.max() + 1:
        return positions[:, particles.atoms]
    return molecule_centres(positions, molecules)[:, molecules[particles.atoms]]


def _chunks(indices: IntArray, size: int) -> Iterator[IntArray]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
