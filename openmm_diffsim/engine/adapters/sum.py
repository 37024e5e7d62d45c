"""A sum of potentials in OpenMM: a Force for each term."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError
from ...observables import Charges, Particles
from ...potentials import AttachOptions, Sum, adapter_of, adapts
from ...samples import LearnedEnergy, SumOfFeatures
from ...statistics.kernels import PairHistogram
from .base import Adapter, Array, FeatureRecorder, IntArray
from .part import FieldPart


@adapts(Sum)
class SumAdapter(Adapter):
    """The adapters of all terms, side by side."""

    def __init__(self, potential: Sum) -> None:
        super().__init__(potential)
        self._parts: list[Adapter] = [adapter_of(term) for term in potential]

    @property
    def parts(self) -> list[Adapter]:
        """Those of the terms."""
        return self._parts

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        """None: each Force is that of a term."""
        return None

    def attach(self, system: openmm.System, options: AttachOptions) -> Any:
        """Add the Force of each term, or none."""
        self._check_parts()
        before = system.getNumForces()
        try:
            return [part.attach(system, options) for part in self.parts]
        except AttachError:
            for index in reversed(range(before, system.getNumForces())):
                system.removeForce(index)
            raise

    def bind(self, system: openmm.System) -> bool:
        """Find the Forces of all terms.

        Raises
        ------
        AttachError
            If two of them share a global parameter, which would be one number for both.
        PotentialError
            If one learns what another one has to do with.
        """
        self._check_parts()
        self.n_particles = system.getNumParticles()
        found = [part.bind(system) for part in self.parts]
        added = [part.force for part in self.parts if part.adds_force]
        names = [name for force in added for name in _global_parameters(force)]
        shared = sorted({name for name in names if names.count(name) > 1})
        if shared:
            raise AttachError(
                f"{self.potential.name}: terms share the global parameters {shared}, which a "
                "Context has once for all Forces; have build() name them after the potential",
                got=shared,
            )
        return all(found)

    def _check_parts(self) -> None:
        for k, part in enumerate(self.parts):
            part.check_beside(self.parts[:k])

    @property
    def forces(self) -> list[openmm.Force]:
        """Those of all terms."""
        return [force for part in self.parts for force in part.forces]

    @property
    def global_parameters(self) -> frozenset[str]:
        """Those of all terms."""
        return frozenset().union(*(part.global_parameters for part in self.parts))

    def learns_of(self, force: openmm.Force) -> bool:
        """Does any of the terms?"""
        return any(part.learns_of(force) for part in self.parts)

    def hide(self, force: openmm.Force, copy: openmm.Force) -> None:
        """What any of the terms learns."""
        for part in self.parts:
            part.hide(force, copy)

    def take_out(self, force: openmm.Force, copy: openmm.Force) -> None:
        """What any of the terms learns."""
        for part in self.parts:
            part.take_out(force, copy)

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        """Copy the present parameters of all terms."""
        for part in self.parts:
            part.update(context, temperature)

    def recorder(
        self, context: openmm.Context, particles: Particles, trajectory: str | Path | None
    ) -> FeatureRecorder:
        """What keeps the learned energy of each term."""
        recorders = [
            part.recorder(context, particles, _own_path(part, trajectory)) for part in self.parts
        ]
        periodic = [part.is_periodic for part in self.parts]
        return SumRecorder(recorders, periodic, tuple(self.potential.slices()))

    def types(self) -> IntArray:
        """Zero for particles that any term acts on, else -1."""
        acts = np.any([part.types() >= 0 for part in self.parts], axis=0)
        return np.where(acts, 0, -1)

    def pair_types(self) -> list[IntArray]:
        """Those of all terms."""
        return [types for part in self.parts for types in part.pair_types()]

    def tuples(self) -> dict[str, list[IntArray]]:
        """Those of all terms."""
        return {name: types for part in self.parts for name, types in part.tuples().items()}

    def exclusions(self) -> list[IntArray]:
        """Those of all terms."""
        return [pairs for part in self.parts for pairs in part.exclusions()]

    def field_parts(self, context: openmm.Context) -> list[tuple[slice, FieldPart]]:
        """That of each term."""
        found = [part.part(context) for part in self.parts]
        return list(zip(self.potential.slices(), found, strict=True))

    def charges(self, charges: Charges) -> Charges:
        """With those of all terms."""
        for part in self.parts:
            charges = part.charges(charges)
        return charges

    def raise_interrupt(self) -> None:
        """Of any term."""
        for part in self.parts:
            part.raise_interrupt()


@dataclass(frozen=True)
class _Sums:
    """What each term found in a frame."""

    counts: list[NDArray[np.int64]]
    parts: list[Any]


class SumRecorder(FeatureRecorder):
    """Has each term keep what that needs; one that is not periodic sees no box."""

    def __init__(
        self,
        recorders: Sequence[FeatureRecorder],
        periodic: Sequence[bool],
        slices: tuple[slice, ...],
    ) -> None:
        self._recorders = recorders
        self._periodic = periodic
        self._slices = slices
        super().__init__()

    def _each(self, box: Array | None) -> Iterator[tuple[FeatureRecorder, Array | None]]:
        for recorder, periodic in zip(self._recorders, self._periodic, strict=True):
            yield recorder, box if periodic else None

    def clear(self) -> None:
        for recorder in self._recorders:
            recorder.clear()

    def want_virial(self, wanted: bool) -> None:
        for recorder in self._recorders:
            recorder.want_virial(wanted)

    def energy_within(self, positions: Array, box: Array | None) -> float:
        return sum(
            recorder.energy_within(positions, own_box) for recorder, own_box in self._each(box)
        )

    def virial_within(self, positions: Array, box: Array | None) -> float:
        return sum(
            recorder.virial_within(positions, own_box) for recorder, own_box in self._each(box)
        )

    def check(self, box: Array | None) -> None:
        for recorder, own_box in self._each(box):
            recorder.check(own_box)

    def sums(self, positions: Array, box: Array | None, histograms: Sequence[PairHistogram]) -> Any:
        """The first term that is periodic, or the first, counts for all."""
        counting = next((k for k, periodic in enumerate(self._periodic) if periodic), 0)
        parts = [
            recorder.sums(positions, own_box, histograms if k == counting else ())
            for k, (recorder, own_box) in enumerate(self._each(box))
        ]
        return _Sums(parts[counting].counts, parts)

    def keep(self, positions: Array, box: Array | None, sums: Any) -> None:
        for (recorder, own_box), part in zip(self._each(box), sums.parts, strict=True):
            recorder.keep(positions, own_box, part)

    def learned(self) -> LearnedEnergy:
        return SumOfFeatures(tuple(r.learned() for r in self._recorders), self._slices)


def _global_parameters(force: Any) -> list[str]:
    if not hasattr(force, "getGlobalParameterName"):
        return []
    return [force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters())]


def _own_path(part: Adapter, trajectory: str | Path | None) -> Path | None:
    """Where a term's frames go; None for one that keeps none."""
    if trajectory is None or part.potential.energy_is_linear:
        return None
    path = Path(trajectory)
    return path.with_stem(f"{path.stem}_{part.potential.name}")
