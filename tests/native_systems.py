"""Systems, platforms, expected values and tolerances for the tests of the native plugin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import openmm
from numpy.typing import NDArray
from systems import BOXES, Array

from openmm_diffsim.engine import native
from openmm_diffsim.potentials import SplineBasis, n_pairs_of_types, pair_index

GROUP = 3  # the spline force's, so that its energy is read without that of others


class Where(NamedTuple):
    """A platform and a precision to run on."""

    platform: str
    precision: str

    def __str__(self) -> str:
        return self.platform + (f"-{self.precision}" if self.has_precisions else "")

    @property
    def has_precisions(self) -> bool:
        return self.platform in ("OpenCL", "CUDA")

    @property
    def epsilon(self) -> float:
        """Largest relative rounding error of one operation on a pair."""
        return 2.0**-53 if self.precision == "double" else 2.0**-24

    @property
    def properties(self) -> dict[str, str]:
        if self.platform == "CPU":
            return {"Threads": "2"}
        return {"Precision": self.precision} if self.has_precisions else {}


REFERENCE, CPU = Where("Reference", "double"), Where("CPU", "single")
PLATFORMS = [
    REFERENCE,
    CPU,
    *(Where(p, q) for p in ("OpenCL", "CUDA") for q in ("single", "mixed", "double")),
]


@cache
def why_missing(where: Where) -> str | None:
    """Why nothing can run there, or None."""
    if native.why_not is not None:
        return f"native plugin: {native.why_not}"
    platforms = range(openmm.Platform.getNumPlatforms())
    if where.platform not in [openmm.Platform.getPlatform(i).getName() for i in platforms]:
        return f"OpenMM has no platform {where.platform} here"
    if where.platform in native.not_loaded:
        return f"the plugin's {where.platform} library: {native.not_loaded[where.platform]}"
    if not (native.FOLDER / f"libOpenMMDiffSim{where.platform}.so").exists():
        return f"the plugin's {where.platform} library was not built"
    plain = openmm.System()
    plain.addParticle(1.0)
    try:
        context_on(where, plain)
    except openmm.OpenMMException as error:  # of OpenMM's own: no device, or not this precision
        return f"OpenMM on {where}: {error}"
    return None


def context_on(
    where: Where, system: openmm.System, integrator: openmm.Integrator | None = None
) -> openmm.Context:
    """A Context there, without positions."""
    platform = openmm.Platform.getPlatform(where.platform)
    integrator = integrator or openmm.VerletIntegrator(0.005)
    return openmm.Context(system, integrator, platform, where.properties)


class Quantities(NamedTuple):
    """All that the force computes at one configuration."""

    energy: Any
    forces: Any  # [particles, 3]
    basis: Any  # S, [pairs of types, coefficients]
    virial: Any  # dW/dc, the same shape
    hessian_product: Any  # [particles, 3]
    parameter_product: Any  # [pairs of types, coefficients]


@dataclass(frozen=True, eq=False)
class Case:
    """A configuration, its force, and what NumPy says about it."""

    positions: Array  # [particles, 3], nm
    box: Array | None
    coefficients: Array  # [pairs of types, coefficients], kJ/mol
    types: NDArray[np.int64]
    basis: SplineBasis
    exclusions: Sequence[tuple[int, int]] = ()
    bonds: Sequence[tuple[int, int]] = ()  # without energy: they only say what a molecule is
    masses: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def n_types(self) -> int:
        return next(n for n in range(1, 99) if n_pairs_of_types(n) == len(self.coefficients))

    @cached_property
    def vectors(self) -> Array:
        """Some vector to multiply with, of order one, [particles, 3]."""
        return np.random.default_rng(7).uniform(-1, 1, self.positions.shape)

    def force(self) -> native.SplinePairForce:
        b = self.basis
        force = native.SplinePairForce(self.n_types, b.r_min, b.cutoff, b.knots)
        force.setCoefficients(self.coefficients)
        force.addParticles(self.types)
        force.addExclusions(self.exclusions)
        force.setForceGroup(GROUP)
        if self.box is not None:
            force.setNonbondedMethod(force.CutoffPeriodic)
        return force

    def system(self, force: native.SplinePairForce) -> openmm.System:
        system = openmm.System()
        masses = self.masses if len(self.masses) else np.full(len(self.positions), 30.0)
        for mass in masses:
            system.addParticle(mass)
        if self.box is not None:
            system.setDefaultPeriodicBoxVectors(*self.box)
        system.addForce(force)
        if self.bonds:
            bonded = openmm.HarmonicBondForce()
            for i, j in self.bonds:
                bonded.addBond(i, j, 0.1, 0.0)
            system.addForce(bonded)
        return system

    @cached_property
    def centers(self) -> Array:
        """The centre (mean position) of each particle's molecule, [particles, 3], nm."""
        label = np.arange(len(self.positions))
        for _ in self.bonds:
            for i, j in self.bonds:
                label[[i, j]] = min(label[i], label[j])
        return np.array([self.positions[label == m].mean(axis=0) for m in label])

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """i, j and r_i - r_j of the pairs that interact, by trying all images."""
        i, j = np.triu_indices(len(self.positions), 1)
        delta = nearest_image(self.positions[i] - self.positions[j], self.box)
        excluded = {frozenset(pair) for pair in self.exclusions}
        keep = np.linalg.norm(delta, axis=1) < self.basis.cutoff
        keep &= (self.types[i] >= 0) & (self.types[j] >= 0)
        keep &= [frozenset(pair) not in excluded for pair in zip(i, j, strict=True)]
        return i[keep], j[keep], delta[keep]

    def spline_forces(self) -> Array:
        """Forces by NumPy, [particles, 3], kJ/mol/nm."""
        i, j, delta = self.pairs
        r = np.linalg.norm(delta, axis=1)
        c = self.coefficients[pair_index(self.n_types)[self.types[i], self.types[j]]]
        slope = np.sum(self.basis.derivatives(r) * c, axis=1)
        return self._on_particles(-(slope / r)[:, None] * delta)

    @cached_property
    def expected(self) -> Quantities:
        """Everything by NumPy, from the definition."""
        i, j, delta = self.pairs
        kind = pair_index(self.n_types)[self.types[i], self.types[j]]
        r = np.linalg.norm(delta, axis=1)
        direction = delta / r[:, None]
        values, slopes = self.basis.values(r), self.basis.derivatives(r)
        c = self.coefficients[kind]
        slope, curvature = np.sum(slopes * c, axis=1), self._curvature(r, kind)
        offsets = self.positions - self.centers
        lever = -np.sum(direction * (delta - offsets[i] + offsets[j]), axis=1)
        difference = self.vectors[i] - self.vectors[j]
        along = np.sum(direction * difference, axis=1)
        product = difference * (slope / r)[:, None]
        product += direction * (along * (curvature - slope / r))[:, None]
        return Quantities(
            np.sum(values * c),
            self.spline_forces(),
            self._by_kind(values, kind),
            self._by_kind(lever[:, None] * slopes, kind),
            self._on_particles(product),
            self._by_kind(-along[:, None] * slopes, kind),
        )

    def _curvature(self, r: Array, kind: NDArray[np.int64]) -> Array:
        """u''(r): linear between the knots, where it is the second difference of c."""
        c = np.pad(self.coefficients, ((0, 0), (1, 3)))
        c[:, 0] = 2 * c[:, 1] - c[:, 2]
        second = (c[:, 2:] - 2 * c[:, 1:-1] + c[:, :-2]) / self.basis.spacing**2
        knots = np.linspace(self.basis.r_min, self.basis.cutoff, self.basis.knots)
        return np.array(
            [np.interp(x, knots, second[k], left=0) for x, k in zip(r, kind, strict=True)]
        )

    def _on_particles(self, of_pairs: Array) -> Array:
        i, j, _ = self.pairs
        total = np.zeros_like(self.positions)
        np.add.at(total, i, of_pairs)
        np.add.at(total, j, -of_pairs)
        return total

    def _by_kind(self, of_pairs: Array, kind: NDArray[np.int64]) -> Array:
        total = np.zeros_like(self.coefficients)
        np.add.at(total, kind, of_pairs)
        return total

    def tolerance(self, where: Where) -> Quantities:
        """How far rounding may take a platform from exact values, from its precision alone.

        Coefficients are independent, of size c (as those of ``mixture`` are), so the p-th
        derivative of a spline is of size D_p = c sqrt(binomial(2p, p)) / h^p, h being the spacing
        of the knots; below r_min, D_0 is larger by the straight line. Rounded coordinates, L being
        the largest, make r wrong by d = eps L / 2 (each rounding is eps/sqrt(3) of its number,
        numbers are spread over 0 to L, two of them make a distance), and the polynomial costs some
        2 eps more. A pair's term of order p is thus wrong by e_p = d D_(p+1) + 2 eps D_p, and
        directions, wrong by d/r, add terms with 1/r. Independent errors of n terms add up to
        sqrt(n) of that. Six standard deviations are allowed. OpenMM's GPU platforms truncate each
        term of a force to fixed point, in units of 2^-32, which is allowed besides; the other
        sums have scales of their own.
        """
        i, j, delta = self.pairs
        h, eps = self.basis.spacing, where.epsilon
        low = float(np.linalg.norm(delta, axis=1).min())
        length = max(np.abs(self.positions).max(), 0.0 if self.box is None else self.box.max())
        d = eps * length / 2
        D = [1 + self.basis.r_min / h, 2**0.5 / h, 6**0.5 / h**2, 20**0.5 / h**3]
        e_value = d * D[1] + 2 * eps * D[0]
        e_slope = d * (D[2] + D[1] / low) + 2 * eps * D[1]
        e_curvature = d * (D[3] + D[2] / low + D[1] / low**2) + 2 * eps * D[2]
        c = float(np.sqrt(np.mean(self.coefficients**2)))
        v = 2**0.5 * float(np.sqrt(np.mean(self.vectors**2)))
        lever = self.basis.cutoff + np.abs(self.positions - self.centers).max()
        pairs, neighbors = len(i), int(np.bincount(np.concatenate([i, j])).max())
        fixed_point = neighbors * 2.0**-32 if where.has_precisions else 0.0

        def allowed(n: int, error: float) -> float:
            return 6 * n**0.5 * float(error)

        return Quantities(
            energy=allowed(pairs, c * e_value),
            forces=allowed(neighbors, c * e_slope) + fixed_point,
            basis=allowed(pairs, e_value),
            virial=allowed(pairs, lever * e_slope),
            hessian_product=allowed(neighbors, v * c * e_curvature),
            parameter_product=allowed(pairs, v * e_slope),
        )


@dataclass
class Live:
    """A case with its Context."""

    case: Case
    where: Where
    force: native.SplinePairForce
    context: openmm.Context

    def reset(self) -> Live:
        """Put back whatever a test may have changed."""
        self.force.setCoefficients(self.case.coefficients)
        for i in np.flatnonzero(self.force.getParticleTypes() != self.case.types):
            self.force.setParticleType(int(i), int(self.case.types[i]))
        self.force.updateParametersInContext(self.context)
        self.place(self.case.positions, self.case.box)
        return self

    def place(self, positions: Array, box: Array | None = None) -> None:
        if box is not None:
            self.context.setPeriodicBoxVectors(*box)
        self.context.setPositions(positions)

    def energy(self) -> float:
        state = self.context.getState(getEnergy=True, groups={GROUP})
        return float(state.getPotentialEnergy()._value)

    def forces(self) -> Array:
        state = self.context.getState(getForces=True, groups={GROUP})
        return np.array(state.getForces(asNumpy=True)._value)

    def positions(self) -> Array:
        state = self.context.getState(getPositions=True)
        return np.array(state.getPositions(asNumpy=True)._value)

    def box(self) -> Array:
        return np.array(self.context.getState().getPeriodicBoxVectors(asNumpy=True)._value)

    def quantities(self) -> Quantities:
        """Everything, by the platform, at the present configuration.

        Derivatives come first: they must not need the energy to have been computed.
        """
        sums = self.force.computeSums(self.context, virial=True)
        products = self.force.computeProducts(self.context, self.case.vectors)
        energy, forces = self.energy(), self.forces()
        return Quantities(energy, forces, sums.basis[0], sums.virial[0], *products)


def live(case: Case, where: Where, integrator: openmm.Integrator | None = None) -> Live:
    """Make a case's Context, with positions set."""
    force = case.force()
    context = context_on(where, case.system(force), integrator)
    context.setPositions(case.positions)
    return Live(case, where, force, context)


def assert_close(found: Quantities, expected: Quantities, tolerance: Quantities) -> None:
    """Each quantity is within its absolute tolerance, everywhere."""
    for name, a, b, allowed in zip(Quantities._fields, found, expected, tolerance, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed, err_msg=name)


def nearest_image(delta: Array, box: Array | None) -> Array:
    """The shortest image of each difference of positions [..., 3], nm, by trying all of them."""
    if box is None:
        return delta
    delta = delta - np.floor(delta @ np.linalg.inv(box)) @ box
    around = np.stack(np.meshgrid(*[np.arange(-2, 2)] * 3), axis=-1).reshape(-1, 3)
    images = delta[..., None, :] + around @ box
    nearest = np.argmin(np.sum(images**2, axis=-1), axis=-1)
    return np.take_along_axis(images, nearest[..., None, None], axis=-2)[..., 0, :]


def random_positions(n: int, box: Array, apart: float, periodic: bool, seed: int) -> Array:
    """Random points of a box, no two closer than ``apart``, nm."""
    rng = np.random.default_rng(seed)
    points = np.zeros((0, 3))
    while len(points) < n:
        tried = rng.uniform(size=3) @ box
        delta = nearest_image(points - tried, box if periodic else None)
        if np.linalg.norm(delta, axis=1).min(initial=np.inf) >= apart:
            points = np.concatenate([points, tried[None]])
    return points


def mixture(
    box: Array, n: int, cutoff: float, periodic: bool = True, molecules: bool = False, seed: int = 1
) -> Case:
    """Three species and particles that do not interact, exclusions, and random coefficients.

    The coefficients are of order one all along, so that every part of the potential, the line
    below r_min and the edge at the cutoff included, weighs alike in a comparison.
    """
    rng = np.random.default_rng(seed)
    basis = SplineBasis(0.2, cutoff, 10)
    positions = random_positions(n, box, 0.13, periodic, seed)
    i, j = np.triu_indices(n, 1)
    delta = nearest_image(positions[i] - positions[j], box if periodic else None)
    bonded = np.argsort(np.linalg.norm(delta, axis=1))[:20]
    excluded = [(int(i[m]), int(j[m])) for m in bonded[::2]]
    bonds = [(3 * m + k, 3 * m + k + 1) for m in range(n // 6) for k in range(2)]
    return Case(
        # A few images away as well: whoever calls need not wrap.
        positions + (rng.integers(-2, 3, (n, 3)) @ box if periodic and not molecules else 0.0),
        box if periodic else None,
        rng.normal(size=(6, basis.n_coefficients)),
        rng.choice([-1, 0, 1, 2], size=n, p=[0.1, 0.4, 0.3, 0.2]),
        basis,
        excluded,
        bonds if molecules else (),
    )


NARROW = np.array([[1.25, 0, 0], [0.6, 1.3, 0], [-0.55, 0.64, 4.1]])
"""Tilted to the limit, and hardly wider than twice the cutoff."""


@cache
def case(name: str) -> Case:
    """One of the CASES."""
    if name == "many":
        return mixture(np.diag([3.1, 3.3, 3.7]), 300, 0.6)
    if name == "nonperiodic":
        return mixture(np.diag([2.0, 2.0, 2.0]), 70, 0.6, periodic=False)
    if name == "molecules":
        return mixture(BOXES["skewed"], 70, 0.6, molecules=True)
    return mixture(NARROW if name == "narrow" else BOXES[name], 70, 0.6, seed=len(name))


CASES = ("cubic", "skewed", "octahedron", "narrow", "molecules", "nonperiodic", "many")


def pair(distance: float = 0.3, exclusions: Sequence[tuple[int, int]] = ()) -> Case:
    """Two particles, and no box."""
    basis = SplineBasis(0.25, 0.6, 12)
    coefficients = np.random.default_rng(2).normal(size=(1, basis.n_coefficients))
    positions = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3 + distance]])
    return Case(positions, None, coefficients, np.zeros(2, dtype=int), basis, exclusions)
