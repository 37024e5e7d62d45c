"""A pair potential in OpenMM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from ...errors import AttachError, SamplingError
from ...observables import Particles
from ...potentials import AttachOptions, PairPotential, adapts, pair_index
from ...statistics.kernels import (
    PairHistogram,
    PairSums,
    SplineInteraction,
    largest_range,
    pair_sums,
)
from ...units import number_in_md_units
from ..native import SplinePairForce
from .base import Adapter, Array, FeatureRecorder, IntArray, refuse_trajectory, unknown_to_context
from .exclusions import exclusions_for
from .pair_force import (
    BACKENDS,
    PairContent,
    as_table,
    bring,
    choose_backend,
    force_exclusions,
    pair_force,
    pair_tables,
    particle_types,
    set_coefficients,
)
from .pair_part import NativePart, TablePart
from .part import FieldPart
from .system import is_periodic, type_of_particle
from .tabulated import LearnedTables

Sums = Callable[..., PairSums]


@adapts(PairPotential)
class PairAdapter(Adapter):
    """Connects a ``PairPotential``, by either of its two Forces."""

    potential: PairPotential

    def build(self, system: openmm.System, options: AttachOptions) -> openmm.Force:
        """A SplinePairForce, or a CustomNonbondedForce with a table."""
        if options.precision is not None:
            raise AttachError(
                f"precision: only a network runs in a precision of its own, got "
                f"{options.precision!r} for the pair potential {self.potential.name!r}"
            )
        n_types = self.potential.n_types
        n = system.getNumParticles()
        type_of = type_of_particle(n_types, n, options.atoms, options.types)
        content = PairContent(
            self.potential.name,
            self.potential.basis,
            n_types,
            self._coefficients(options.temperature),
            type_of,
            exclusions_for(system, options, type_of, self.potential.name),
            is_periodic(system, options.periodic),
        )
        return BACKENDS[choose_backend(options.backend)](content)

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        """A SplinePairForce or a CustomNonbondedForce."""
        return pair_force(force)

    @classmethod
    def tables(cls, force: Any) -> LearnedTables | None:
        """Of each pair of types."""
        return pair_tables(force)

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        """Copy the present coefficients; nothing is rebuilt."""
        c = self._coefficients(temperature)
        if not set_coefficients(self.force, self.potential.basis, c):
            raise AttachError(
                f"the force {self.force.getName()!r} in the System was made for other knots than "
                f"{self.potential.basis}"
            )
        if context is not None:
            try:
                bring(self.force, context)
            except openmm.OpenMMException as error:
                raise unknown_to_context(self.force, error) from error

    def recorder(
        self, context: openmm.Context, particles: Particles, trajectory: str | Path | None
    ) -> FeatureRecorder:
        """Basis and virial sums of each frame."""
        refuse_trajectory(trajectory)
        return _PairRecorder(self.sums(context, particles.molecule_of), self.potential.basis.cutoff)

    def types(self) -> IntArray:
        """Type of each particle, -1 for those that do not interact."""
        return particle_types(self.force, self.potential.n_types)

    def options(self, temperature: float) -> AttachOptions:
        """With its exclusions, and by the same of the two Forces."""
        backend = "native" if isinstance(self.force, SplinePairForce) else "table"
        exclusions = force_exclusions(self.force).tolist()
        return replace(super().options(temperature), exclusions=exclusions, backend=backend)

    def pair_types(self) -> list[IntArray]:
        """Its ``types``."""
        return [self.types()]

    def exclusions(self) -> list[IntArray]:
        """Its excluded pairs."""
        return [force_exclusions(self.force)]

    def part(self, context: openmm.Context) -> FieldPart:
        """Forces of the Context; their derivatives natively, or by differences of a table."""
        if isinstance(self.force, SplinePairForce):
            return NativePart(self.force, context, self.potential.basis)
        sums = self.sums(context, np.arange(self.n_particles))
        return TablePart(self.force, context, self.potential.basis, sums)

    @classmethod
    def portable(cls, force: Any) -> openmm.Force:
        """A table in place of a native force."""
        return as_table(force) if isinstance(force, SplinePairForce) else super().portable(force)

    def sums(self, context: openmm.Context, molecule_of: IntArray) -> Sums:
        """A function (positions, boxes, histograms=) that gives the sums over the pairs of frames.

        They are native where the force is, and taken by Numba where it is a table.
        """
        if isinstance(self.force, SplinePairForce):
            return partial(self.force.computeSums, context, virial=True)
        basis = self.potential.basis
        interaction = SplineInteraction(
            basis.r_min,
            basis.spacing,
            basis.cutoff,
            basis.n_coefficients,
            self.types(),
            pair_index(self.potential.n_types),
            force_exclusions(self.force),
            molecule_of,
        )
        return partial(pair_sums, interaction=interaction)

    def _coefficients(self, temperature: Any) -> Array:
        if temperature is not None:
            temperature = number_in_md_units(temperature, "temperature")
        c = self.potential.spline_coefficients(temperature).detach().numpy()
        if not np.all(np.isfinite(c)):
            raise AttachError(f"the coefficients of {self.potential.name!r} are not finite")
        return c


class _PairRecorder(FeatureRecorder):
    """The sums that come with one pass over the pairs of a frame."""

    def __init__(self, sums: Sums, cutoff: float) -> None:
        self._sums = sums
        self._cutoff = cutoff
        super().__init__()

    def check(self, box: Array | None) -> None:
        """SamplingError where a pair within the cutoff has no unique minimum image."""
        if box is not None and self._cutoff > largest_range(box) + 1e-9:
            raise SamplingError(
                f"the cutoff, {self._cutoff:.4f} nm, is beyond half the box, "
                f"{largest_range(box):.4f} nm",
                reason="box",
            )

    def sums(
        self, positions: Array, box: Array | None, histograms: Sequence[PairHistogram]
    ) -> PairSums:
        boxes = None if box is None else box[None]
        return self._sums(positions[None], boxes, histograms=histograms)

    def keep(self, positions: Array, box: Array | None, sums: PairSums) -> None:
        self._kept.append((sums.basis[0].ravel(), sums.virial[0].ravel()))
