"""Bonds, angles and dihedral angles in OpenMM: a force of several particles with a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from ...errors import AttachError
from ...observables import Particles
from ...potentials import AttachOptions, BondedBasis, BondedSpline, BondSpline, adapts
from ...statistics.internal import COORDINATES
from ...statistics.molecules import molecule_centres, parts_of
from ...statistics.scaling import scaled
from .base import Adapter, Array, FeatureRecorder, IntArray, refuse_trajectory, unknown_to_context
from .bonds import bonds_of
from .part import FieldPart, displacement
from .system import is_periodic
from .tabulated import LearnedTables, TupleTables, natural_spline
from .tuples import tuples_for

_TABLE = "bonded_table"
_COORDINATE = {2: "distance(p1, p2)", 3: "angle(p1, p2, p3)", 4: "dihedral(p1, p2, p3, p4)"}
_PADDING = 24  # knots; an interpolating cubic spline forgets a jump by 0.268 per knot
_SCALING = 1e-5  # of a box, for the differences of tuples between molecules


@adapts(BondedSpline)
class BondedAdapter(Adapter):
    """Connects a ``BondedSpline``, by a CustomCompoundBondForce."""

    potential: BondedSpline

    def build(self, system: openmm.System, options: AttachOptions) -> openmm.Force:
        """The force of all tuples, with one table for all types."""
        tuples, types = tuples_for(system, options, self.potential)
        basis, size = self.potential.basis, self.potential.n_particles
        force = openmm.CustomCompoundBondForce(size, _expression(basis, _COORDINATE[size]))
        force.addPerBondParameter("type")
        for name, function in _functions(basis, self._coefficients()).items():
            force.addTabulatedFunction(name, function)
        for particles, kind in zip(tuples.tolist(), types, strict=True):
            force.addBond(particles, [float(kind)])
        force.setUsesPeriodicBoundaryConditions(is_periodic(system, options.periodic))
        return force

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        """One with its table."""
        if not isinstance(force, openmm.CustomCompoundBondForce):
            return None
        names = map(force.getTabulatedFunctionName, range(force.getNumTabulatedFunctions()))
        return force if _TABLE in names else None

    @classmethod
    def tables(cls, force: Any) -> LearnedTables | None:
        """Of each type."""
        return _read_tables(force)

    def content_of(self) -> tuple[IntArray, IntArray]:
        """Its tuples, [tuples, n], and the type of each."""
        return _tuples_of(self.force)

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        """Copy the present coefficients; nothing is rebuilt."""
        set_table(self.force, self.potential.basis, self._coefficients())
        if context is not None:
            try:
                self.force.updateParametersInContext(context)
            except openmm.OpenMMException as error:
                raise unknown_to_context(self.force, error) from error

    def recorder(
        self, context: openmm.Context, particles: Particles, trajectory: str | Path | None
    ) -> FeatureRecorder:
        """Basis sums of each frame."""
        refuse_trajectory(trajectory)
        return BondedSums(self.potential, *self.content_of(), particles.molecule_of)

    def types(self) -> IntArray:
        """Zero for the particles of its tuples, else -1."""
        found = np.full(self.n_particles, -1, dtype=np.int64)
        found[self.content_of()[0]] = 0
        return found

    def options(self, temperature: float) -> AttachOptions:
        """With its tuples and their types."""
        tuples, types = self.content_of()
        plain = AttachOptions(periodic=self.is_periodic)
        return replace(plain, tuples=tuples, tuple_types=types)

    def tuples(self) -> dict[str, list[IntArray]]:
        """Those of each type."""
        tuples, types = self.content_of()
        rows = [tuples[types == kind] for kind in range(self.potential.n_types)]
        return {self.potential.name: rows}

    def part(self, context: openmm.Context) -> FieldPart:
        """Forces of the Context; their derivatives by differences."""
        sums = BondedSums(self.potential, *self.content_of(), np.arange(self.n_particles))
        return _BondedPart(self.force, context, sums)

    def _coefficients(self) -> Array:
        c = self.potential.spline_coefficients().numpy(force=True)
        if not np.all(np.isfinite(c)):
            raise AttachError(f"the coefficients of {self.potential.name!r} are not finite")
        return c


@adapts(BondSpline)
class BondAdapter(BondedAdapter):
    """Connects a ``BondSpline``, whose bonds make molecules.

    A CustomCompoundBondForce makes none of OpenMM's, and what does has no tables. So there is a
    HarmonicBondForce without stiffness beside it, of the bonds that no other force makes.
    """

    def attach(self, system: openmm.System, options: AttachOptions) -> Any:
        """Add the Force, and before it what makes molecules of what it bonds."""
        bonds, _ = tuples_for(system, options, self.potential)
        part_of = parts_of(bonds_of(system).own.pairs, system.getNumParticles())
        loose = bonds[part_of[bonds[:, 0]] != part_of[bonds[:, 1]]]
        force = super().attach(system, replace(options, tuples=bonds))
        if len(loose):
            system.addForce(self._without_stiffness(loose, force))
        return force

    def _without_stiffness(self, bonds: IntArray, force: openmm.Force) -> openmm.Force:
        made = openmm.HarmonicBondForce()
        made.setName(f"{self.potential.name} molecules")
        for a, b in bonds.tolist():
            made.addBond(a, b, 0.0, 0.0)
        made.setUsesPeriodicBoundaryConditions(force.usesPeriodicBoundaryConditions())
        return made


class BondedSums(FeatureRecorder):
    """Basis sums of a frame, of tuples [tuples, n] of types [tuples].

    Within a molecule a tuple moves as a whole and adds nothing to the virial.
    """

    def __init__(
        self, potential: BondedSpline, tuples: IntArray, types: IntArray, molecule_of: IntArray
    ) -> None:
        super().__init__()
        self._basis, self._n_types = potential.basis, potential.n_types
        self._coordinate = COORDINATES[potential.n_particles]
        self._tuples, self._types = tuples, types
        self._molecule_of = molecule_of
        self._apart = (np.ptp(molecule_of[tuples], axis=1) > 0).nonzero()[0]

    def features(self, positions: Array, box: Array | None) -> tuple[Array, Array]:
        """S and dW/dc, [types * knots] each."""
        return self.sums_of(positions, box), self._virial(positions, box)

    def sums_of(self, positions: Array, box: Array | None) -> Array:
        """S alone."""
        return self._sums(positions, box, slice(None))

    def _sums(self, positions: Array, box: Array | None, chosen: Any) -> Array:
        q = self._coordinate(positions, self._tuples[chosen], box)
        return self._basis.sums(q, self._types[chosen], self._n_types).ravel()

    def _virial(self, positions: Array, box: Array | None) -> Array:
        """-dS/d ln(side of the box), by differences: the centres of molecules move with the box."""
        if not len(self._apart):
            return np.zeros(self._n_types * self._basis.knots)
        centres = molecule_centres(positions, self._molecule_of)[self._molecule_of]
        sides = np.eye(3) if box is None else box
        found = []
        for scale in (1 - _SCALING, 1 + _SCALING):
            moved, larger = scaled(positions, centres, sides, scale)
            found.append(self._sums(moved, None if box is None else larger, self._apart))
        return np.asarray((found[0] - found[1]) / (2 * _SCALING))


class _BondedPart(FieldPart):
    """The forces of a bonded potential along a segment, with differences of its basis sums."""

    def __init__(self, force: Any, context: openmm.Context, sums: BondedSums) -> None:
        super().__init__(force.getName(), force.usesPeriodicBoundaryConditions())
        self.force, self.context, self._recorder = force, context, sums

    @contextmanager
    def having(self, c: Array) -> Iterator[None]:
        functions = range(self.force.getNumTabulatedFunctions())
        before = [self.force.getTabulatedFunction(k).getFunctionParameters() for k in functions]
        try:
            self.put(self.force, self.context, c)
            yield
        finally:
            for k, parameters in enumerate(before):
                _set(self.force.getTabulatedFunction(k), parameters)
            self.force.updateParametersInContext(self.context)

    def put(self, force: openmm.Force, context: openmm.Context, c: Array) -> None:
        basis = self._recorder._basis
        set_table(force, basis, c.reshape(-1, basis.knots))
        force.updateParametersInContext(context)

    def parameter_product(self, c: Array, positions: Array, w: Array, box: Array | None) -> Array:
        pairs = zip(positions, w, strict=True)
        return np.asarray(np.sum([self._product(x, row, box) for x, row in pairs], axis=0))

    def _product(self, x: Array, w: Array, box: Array | None) -> Array:
        """dF/dc = -dS/dx."""
        step = displacement(w)
        before, after = (self._recorder.sums_of(x + s * step * w, box) for s in (-1, 1))
        return np.asarray((before - after) / (2 * step))


# The table ----------------------------------------------------------------------------------------


def _expression(basis: BondedBasis, q: str) -> str:
    """Looks up the stretch of a type; beyond straight ends u goes on with the slopes there."""
    lookup = f"{_TABLE}(inside + {_stride(basis)!r} * type)"
    if basis.ends != "straight":
        return f"{lookup}; inside = {q}"
    low, high = repr(basis.low), repr(basis.high)
    return (
        f"{lookup} + first(type) * min(q - {low}, 0) + last(type) * max(q - {high}, 0); "
        f"inside = min(max(q, {low}), {high}); q = {q}"
    )


def _stride(basis: BondedBasis) -> float:
    """From the stretch of a type to that of the next."""
    return float(basis.spacing * (basis.cells + 2 * _PADDING))


def _read_tables(force: openmm.CustomCompoundBondForce) -> LearnedTables:
    table = natural_spline(force.getTabulatedFunction(0))
    spacing = float(table.x[1] - table.x[0])
    (stride,) = re.findall(rf"{_TABLE}\(inside \+ (\S+) \* type\)", force.getEnergyFunction())
    cells = round(float(stride) / spacing) - 2 * _PADDING
    ends = map(force.getTabulatedFunction, range(1, force.getNumTabulatedFunctions()))
    slopes = [np.array(function.getFunctionParameters()) for function in ends]
    found = TupleTables(
        force.getName(),
        *_tuples_of(force),
        low := float(table.x[_PADDING]),
        low + cells * spacing,
        force.usesPeriodicBoundaryConditions(),
        table,
        float(stride),
        (slopes[0], slopes[1]) if slopes else None,
    )
    return LearnedTables(tuples=[found])


def _tuples_of(force: openmm.CustomCompoundBondForce) -> tuple[IntArray, IntArray]:
    rows = map(force.getBondParameters, range(force.getNumBonds()))
    tuples, types = zip(*((particles, kind) for particles, (kind,) in rows), strict=True)
    return np.array(tuples, dtype=np.int64), np.array(types, dtype=np.int64)


def _functions(basis: BondedBasis, c: Array) -> dict[str, openmm.TabulatedFunction]:
    values, slopes = _tables(basis, c)
    low = basis.low - _PADDING * basis.spacing
    high = low + basis.spacing * (len(values) - 1)
    found: dict[str, Any] = {_TABLE: openmm.Continuous1DFunction(values, low, high)}
    if basis.ends == "straight":
        found["first"], found["last"] = (openmm.Discrete1DFunction(s) for s in slopes)
    return found


def _tables(basis: BondedBasis, c: Array) -> tuple[Array, Array]:
    """Values at the knots, one stretch for each type [types, knots] of c, and slopes at the ends.

    Around each stretch there is padding, by which the spline through all of them forgets the jump
    to the next one and has the ends of the basis.
    """
    x = basis.low + basis.spacing * np.arange(-_PADDING, basis.cells + _PADDING)
    values = np.append((c @ basis.values(x).T).ravel(), 0.0)
    return values, basis.derivatives([basis.low, basis.high]) @ c.T


def set_table(force: Any, basis: BondedBasis, c: Array) -> None:
    """Give a Force other coefficients, [types, knots].

    Raises
    ------
    AttachError
        If it was made for other knots, or another number of types.
    """
    for k, (name, made) in enumerate(_functions(basis, c).items()):
        function = force.getTabulatedFunction(k)
        old, new = function.getFunctionParameters(), made.getFunctionParameters()
        if force.getTabulatedFunctionName(k) != name or not _alike(old, new):
            raise AttachError(
                f"the force {force.getName()!r} in the System was made for other knots than "
                f"{basis}, or for another number of types than {len(c)}"
            )
        _set(function, new)


def _alike(old: Any, new: Any) -> bool:
    """Of one size and, where there is one, over one range?"""
    if not isinstance(old, list):
        return len(old) == len(new)
    return len(old[0]) == len(new[0]) and bool(np.allclose(old[1:3], new[1:3], 0, 1e-9))


def _set(function: openmm.TabulatedFunction, parameters: Any) -> None:
    function.setFunctionParameters(*(parameters if isinstance(parameters, list) else [parameters]))
