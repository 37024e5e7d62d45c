"""Energies that are no polynomial of the parameters: evaluated anew from stored frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import AttachError, StatePointError
from ...io.archive import from_text, to_text
from ...observables import Particles
from ...samples import EvaluatedFrames
from ...samples.features import RESTORE, Restore
from ...samples.stored_run import NetworkParticles
from ...statistics.molecules import molecule_centres
from ...statistics.scaling import SCALING, scaled
from ..adapters.network import FramesRecorder
from .probe import Probe

Array = NDArray[np.float64]
Frame = tuple[Array, Array | None]


class ProbedEnergy:
    """A term's energy as a function of its parameters, in any frames of one System.

    Parameters
    ----------
    term : ProbedTerm
    key : str
        Of the System.
    like : openmm.Context, optional
        Whose platform and fixed parameters are taken. Default: Reference, and the defaults.
    """

    def __init__(self, term: Any, key: str, like: openmm.Context | None = None) -> None:
        layout = term.layouts[key]
        self.name, self.key = term.name, key
        self._term = term
        self._probe = Probe(term, layout.own, layout.xml, like)
        self._probe.freeze()

    def parameters(self) -> Iterator[Tensor]:
        """None of torch's."""
        return iter(())

    def energies(self, p: Tensor, frames: Sequence[Frame]) -> Tensor:
        """U, kJ/mol, [frames], with a graph to p if that wants one."""
        return cast(Tensor, _Energies.apply(p, self, frames))  # type: ignore[no-untyped-call]

    def virials(self, p: Tensor, frames: Sequence[Frame], molecule_of: Any) -> Tensor:
        """W = -3 V dU/dV, moving whole molecules, kJ/mol, [frames]; from scaled boxes."""
        larger, smaller = (
            self.energies(p, [_resized(frame, molecule_of, 1 + sign * SCALING) for frame in frames])
            for sign in (1, -1)
        )
        return -(larger - smaller) / (2 * SCALING)

    def values(self, p: Array, frames: Sequence[Frame]) -> Array:
        """U, kJ/mol, [frames]."""
        return np.array([self._at(frame).energy(p) for frame in frames])

    def slopes(self, p: Array, frames: Sequence[Frame]) -> Array:
        """dU/dp, [frames, parameters]."""
        return np.array([self._term.slopes(self._at(frame), p) for frame in frames])

    def _at(self, frame: Frame) -> Probe:
        self._probe.place(*frame)
        return self._probe


class ProbedFrames(EvaluatedFrames):
    """Energies of frames from a DCD file; its potential is a ``ProbedEnergy``."""

    kind = "probed"

    def _compute(
        self,
        quantity: str,
        theta: Tensor,
        positions: Array,
        boxes: Array | None,
        particles: NetworkParticles,
    ) -> Tensor:
        frames = [(x, None if boxes is None else boxes[k]) for k, x in enumerate(positions)]
        if quantity == "energy":
            return cast(Tensor, self.potential.energies(theta, frames))
        if boxes is None:
            raise StatePointError("a virial needs a periodic box, and these frames have none")
        return cast(Tensor, self.potential.virials(theta, frames, particles.molecule_of))

    def arrays(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Also of which System."""
        return super().arrays(folder) | {"system": from_text(self.potential.key)}

    @staticmethod
    def restore(potential: Any, arrays: Mapping[str, NDArray[Any]], folder: Path) -> ProbedFrames:
        """``potential`` is the term; AttachError where it does not know the System."""
        key = to_text(arrays["system"])
        if key not in potential.layouts:
            raise AttachError(
                f"{potential.name}: these frames are of a System that it was neither made for nor "
                "attached to: call attach(system) of it first"
            )
        found = EvaluatedFrames.restore(potential, arrays, folder)
        return ProbedFrames(ProbedEnergy(potential, key), found.runs)


RESTORE["probed"] = cast(Restore, ProbedFrames.restore)


class ProbedRecorder(FramesRecorder):
    """Keeps the configurations, for one term."""

    def __init__(
        self,
        term: Any,
        key: str,
        context: openmm.Context,
        particles: Particles,
        trajectory: Path | None,
    ) -> None:
        self._energy = ProbedEnergy(term, key, context)
        self._present = torch.from_numpy(term.own.numbers())
        types = np.zeros(len(particles.molecule_of), dtype=np.int64)
        super().__init__(self._energy, types, particles.molecule_of, trajectory)

    def stored(self, positions: Array, box: Array | None) -> Array:
        """As they are: walls and bonds without a box are not the same between other images."""
        return positions

    def virial_within(self, positions: Array, box: Array | None) -> float:
        if box is None:
            return 0.0
        molecule_of = self._particles.molecule_of
        return float(self._energy.virials(self._present, [(positions, box)], molecule_of))

    def learned(self) -> EvaluatedFrames:
        return ProbedFrames(self._energy, super().learned().runs)


class _Energies(torch.autograd.Function):
    """Energies of frames, whose derivatives are asked for only where they count."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, energy: ProbedEnergy, frames: Sequence[Frame]) -> Tensor:
        ctx.energy, ctx.frames = energy, frames
        ctx.save_for_backward(p)
        return torch.from_numpy(energy.values(p.detach().numpy(), frames))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor, None, None]:
        (p,) = ctx.saved_tensors
        slopes = ctx.energy.slopes(p.detach().numpy(), ctx.frames)
        return w @ torch.from_numpy(slopes), None, None


def _resized(frame: Frame, molecule_of: Any, scale: float) -> Frame:
    positions, box = frame
    assert box is not None
    return scaled(positions, molecule_centres(positions, molecule_of)[molecule_of], box, scale)
