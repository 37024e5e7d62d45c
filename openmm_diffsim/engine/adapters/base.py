"""What connects a potential with OpenMM: one adapter a kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError, ExportError, SamplingError, SegmentError
from ...observables import Charges, Particles
from ...potentials import AttachOptions, Potential, adapter_of
from ...samples import Features, LearnedEnergy
from ...statistics.kernels import PairHistogram, PairSums, pair_sums
from .part import FieldPart
from .tabulated import LearnedTables

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class FeatureRecorder:
    """Keeps of every frame what its learned energy needs; to be subclassed.

    For an energy that is linear in the coefficients give ``features``; the rest is for what takes
    sums over pairs anyway, or keeps something else.
    """

    with_virial = True
    """Will anybody ask for the virial? If not, what it costs can be saved: NaN does."""

    def __init__(self) -> None:
        self.clear()

    def want_virial(self, wanted: bool) -> None:
        """Sets ``with_virial``, before the first frame."""
        self.with_virial = wanted

    def clear(self) -> None:
        """Forget what was kept."""
        self._kept: list[tuple[Array, Array]] = []

    def check(self, box: Array | None) -> None:
        """SamplingError where frames in this box cannot be kept."""

    def features(self, positions: Array, box: Array | None) -> tuple[Array, Array]:
        """S = dU/dc and dW/dc, [coefficients] each, of a frame; W = -3 V dU/dV.

        The volume derivative moves whole molecules. Without a box dW/dc counts for nothing.
        """
        raise not_given(self, "features", "S and dW/dc of a frame")

    def virial_within(self, positions: Array, box: Array | None) -> float:
        """Its share of the virial of the forces that are not its own, kJ/mol: none."""
        return 0.0

    def energy_within(self, positions: Array, box: Array | None) -> float:
        """Its share of the energy of the forces that are not its own, kJ/mol: none."""
        return 0.0

    def sums(
        self, positions: Array, box: Array | None, histograms: Sequence[PairHistogram]
    ) -> PairSums:
        """One pass over the pairs of a frame, if anything is to be counted."""
        if not histograms:
            return PairSums(np.zeros((1, 0, 0)), np.zeros((1, 0, 0)), [])
        boxes = None if box is None else box[None]
        return pair_sums(positions[None], boxes, histograms)

    def keep(self, positions: Array, box: Array | None, sums: PairSums) -> None:
        """Keep a frame, of which ``sums`` gave the sums."""
        self._kept.append(self.features(positions, box))

    def learned(self) -> LearnedEnergy:
        """All frames so far."""
        energies, virials = zip(*self._kept, strict=True)
        return Features(np.array(energies), np.array(virials))


class Adapter:
    """Connects one potential with the System and the Contexts that it is in.

    To add one for a kind of potential, subclass, give ``build``, ``own``, ``update`` and
    ``recorder``, and register it:

        @diffsim.adapts(MyPotential)
        class MyAdapter(diffsim.Adapter): ...

    Attributes
    ----------
    potential : Potential
    force : openmm.Force
        Its Force, once ``bind`` found it.
    n_particles : int
        Of the System.
    """

    force: Any = None
    n_particles = 0
    adds_force = True
    """Does ``attach`` add a Force? If not, those that are there hold what is learned."""

    def __init__(self, potential: Any) -> None:
        self.potential = potential

    # To give --------------------------------------------------------------------------------------

    def build(self, system: openmm.System, options: AttachOptions) -> openmm.Force:
        """The Force, with the present parameters, for this System; it is not added yet.

        Raises
        ------
        AttachError
            If an option does not fit.
        """
        raise not_given(self, "build", "the Force that attach() adds")

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        """The Force with its own class if it is one of this kind's, or None."""
        raise not_given(cls, "own", "the Force if it is one of this kind's, or None")

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        """Copy the potential's present parameters to the Force and, if given, to a live Context.

        Raises
        ------
        AttachError
            If parameters are not finite, the Force was made for another form of potential, or the
            Context was made before the Force was added to the System.
        """
        raise not_given(self, "update", "nothing, and brings the parameters to the Context")

    def recorder(
        self, context: openmm.Context, particles: Particles, trajectory: str | Path | None
    ) -> FeatureRecorder:
        """What keeps the learned energy of frames."""
        raise not_given(self, "recorder", "a FeatureRecorder")

    # What may be given ----------------------------------------------------------------------------

    def types(self) -> IntArray:
        """Type of each particle of the System, -1 for those that it does not act on."""
        return np.zeros(self.n_particles, dtype=np.int64)

    def pair_types(self) -> list[IntArray]:
        """``types`` of each of the potential's ``pairs``."""
        return []

    def tuples(self) -> dict[str, list[IntArray]]:
        """Of a bonded potential, by its name, the tuples of each type, [tuples, n] each."""
        return {}

    def options(self, temperature: float) -> AttachOptions:
        """What ``attach`` would have to be given to make the same Force again, at that many K."""
        types = self.types()
        atoms = np.flatnonzero(types >= 0)
        return AttachOptions(
            atoms, types[atoms], periodic=self.is_periodic, temperature=temperature
        )

    def exclusions(self) -> list[IntArray]:
        """Excluded pairs, int [exclusions, 2], of each Force that has some."""
        return []

    def part(self, context: openmm.Context) -> FieldPart:
        """Its forces along trajectory segments.

        Raises
        ------
        SegmentError
            If it has none.
        """
        raise SegmentError(
            f"a segment cannot follow the forces of {type(self.potential).__name__}: its adapter "
            "has no part()"
        )

    @classmethod
    def portable(cls, force: Any) -> openmm.Force:
        """A copy of a Force of this kind that can be kept in a file."""
        return openmm.XmlSerializer.clone(force)

    @classmethod
    def check_portable(cls, force: Any) -> None:
        """AttachError where another program could not read what ``portable`` made of this."""

    @classmethod
    def content(cls, force: Any) -> dict[str, Any] | None:
        """What a Force of this kind computes with, as plain data, where its XML does not say it."""
        return None

    @classmethod
    def tables(cls, force: Any) -> LearnedTables | None:
        """What a Force of this kind computes, as tables; None if it is not a learned one.

        Raises
        ------
        ExportError
            If no table can say it.
        """
        raise ExportError(
            f"the force {force.getName()!r} ({type(force).__name__}) is learned, and no table of "
            "pairs, bonds, angles or dihedral angles can say what it does: it cannot be exported",
            got=force.getName(),
        )

    def learns_of(self, force: openmm.Force) -> bool:
        """Is anything learned of a Force of its System, which is not its own?"""
        return False

    def hide(self, force: openmm.Force, copy: openmm.Force) -> None:
        """Put constants in place of what is learned of a Force into a copy of it."""

    def take_out(self, force: openmm.Force, copy: openmm.Force) -> None:
        """Leave of a copy of a Force only the energy that does not depend on what is learned.

        Where the two cannot be told apart in a Force the copy stays, and the recorder says what is
        within.
        """

    def check_beside(self, others: Sequence[Adapter]) -> None:
        """PotentialError where it cannot be in a sum with these others: it can be with any."""

    @property
    def global_parameters(self) -> frozenset[str]:
        """Names of the parameters of a Context that are learned, in Forces that are not its own."""
        return frozenset()

    def charges(self, charges: Charges) -> Charges:
        """Of all particles, with what it learns of them beside what ``charges`` has already.

        What it learns is z of ``potential.free_charges``; here: nothing.
        """
        return charges

    def raise_interrupt(self) -> None:
        """Raise what interrupted Python that the Force called; OpenMM makes its own error of it."""

    # What all have --------------------------------------------------------------------------------

    @property
    def parts(self) -> list[Adapter]:
        """One for each term."""
        return [self]

    @property
    def forces(self) -> list[openmm.Force]:
        """All its Forces, and those that hold what is learned."""
        return [self.force]

    @property
    def names(self) -> frozenset[str]:
        """Of the Forces that it added."""
        return frozenset(part.potential.name for part in self.parts if part.adds_force)

    def field_parts(self, context: openmm.Context) -> list[tuple[slice, FieldPart]]:
        """The ``part`` of each term, and where its coefficients are.

        Raises
        ------
        SegmentError
            If a term has none.
        """
        return [(slice(None), self.part(context))]

    @property
    def is_periodic(self) -> bool:
        """Does it act across the faces of a box?"""
        return any(force.usesPeriodicBoundaryConditions() for force in self.forces)

    def attach(self, system: openmm.System, options: AttachOptions) -> Any:
        """Add the Force; see ``Potential.attach``."""
        if self.bind(system):
            raise AttachError(
                f"the System already has a force named {self.potential.name!r}; give this "
                "potential another name= to attach both"
            )
        force = self.build(system, options)
        force.setName(self.potential.name)
        system.addForce(force)
        return force

    def bind(self, system: openmm.System) -> bool:
        """Find the Force that ``attach`` added, by its name; False if there is none."""
        self.n_particles = system.getNumParticles()
        for force in system.getForces():
            if force.getName() == self.potential.name:
                self.force = self.own(force)
                if self.force is not None:
                    return True
        return False


def attached(potential: Potential, system: openmm.System) -> Adapter:
    """The adapter of a potential, bound to the Force that ``attach`` added.

    Raises
    ------
    AttachError
        If the System has none.
    """
    adapter: Adapter = adapter_of(potential)
    if not adapter.bind(system):
        missing = " or ".join(repr(p.potential.name) for p in adapter.parts if p.force is None)
        raise AttachError(
            f"the System has no force named {missing}: call potential.attach(system) before the "
            "Simulation is made"
        )
    return adapter


def not_given(owner: Any, method: str, what: str) -> NotImplementedError:
    """What to raise where a subclass lacks a method that it has to give."""
    kind = owner if isinstance(owner, type) else type(owner)
    return NotImplementedError(f"{kind.__name__} has no {method}(): give it one; it returns {what}")


def unknown_to_context(force: openmm.Force, error: Exception) -> AttachError:
    """What to raise where a Context does not know a Force."""
    return AttachError(
        f"the Context does not know the force {force.getName()!r} ({error}). It was made "
        "before attach(): attach first, or call context.reinitialize(preserveState=True)"
    )


def refuse_trajectory(trajectory: str | Path | None) -> None:
    """SamplingError where a file for frames is given to what keeps none."""
    if trajectory is not None:
        raise SamplingError(
            "trajectory: a pair potential needs none, its sums are kept; add OpenMM's DCDReporter "
            "to the Simulation for a trajectory",
            reason="arguments",
        )
