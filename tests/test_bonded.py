"""Tables of bonds, angles and dihedral angles: features, forces, and ideal gases known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from systems import BOXES, empty_system, topology

import openmm_diffsim as diffsim
from openmm_diffsim.engine.adapters import attached, has_energy, portable_system
from openmm_diffsim.engine.recorder import FrameRecorder, RestForces
from openmm_diffsim.errors import AttachError, PotentialError
from openmm_diffsim.potentials import flat_parameters
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

KELVIN = 300.0
THERMAL = MOLAR_GAS_CONSTANT * KELVIN
N = 24


def shuffled(potential: Any, seed: int, scale: float = 5.0) -> Any:
    """With random coefficients."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        potential.values.copy_(torch.from_numpy(scale * rng.normal(size=potential.values.shape)))
    return potential


def three(seed: int) -> list[Any]:
    """One of each kind, with several types."""
    return [
        shuffled(diffsim.BondSpline(0.3, 0.6, 20, n_types=3, name="bonds"), seed),
        shuffled(diffsim.AngleSpline(15, n_types=2, name="angles"), seed + 1),
        shuffled(diffsim.DihedralSpline(24, n_types=2, name="torsions"), seed + 2),
    ]


def chain(box: Array | None, potentials: list[Any]) -> openmm.Context:
    """A chain with all three, and angles between any particles."""
    rng = np.random.default_rng(5)
    system = empty_system(N, np.eye(3) if box is None else box)
    periodic = box is not None
    bonds, angles, torsions = potentials
    pairs = [(i, i + 1) for i in range(N - 1)]
    bonds.attach(system, bonds=pairs, types=rng.integers(0, 3, N - 1), periodic=periodic)
    triples = rng.permuted(np.tile(np.arange(N), (20, 1)), axis=1)[:, :3]
    angles.attach(system, triples=triples, types=rng.integers(0, 2, 20), periodic=periodic)
    torsions.attach(system, types=rng.integers(0, 2, N - 3), periodic=periodic)
    for force in system.getForces():
        force.setForceGroup(
            ["bonds", "angles", "torsions", "bonds molecules"].index(force.getName())
        )
    return context_of(system)


def context_of(system: openmm.System) -> openmm.Context:
    platform = openmm.Platform.getPlatform("Reference")
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform)


def energy(context: openmm.Context, groups: int = -1) -> float:
    state = context.getState(getEnergy=True, groups=groups)
    return float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))


def one_frame(potential: Any, context: openmm.Context, x: Array, box: Array | None) -> Any:
    recorder = FrameRecorder(potential, context, [], KELVIN)
    recorder.add(x, box)
    return recorder.samples(potential.coefficients().detach().numpy(), KELVIN, None, 1)


# Features, forces and ends ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [None, *BOXES])
def test_features_give_the_energy_of_the_context(shape: str | None) -> None:
    """At 100 parameter sets that a live Context is brought to; each term by itself."""
    box = None if shape is None else BOXES[shape]
    terms = three(1)
    context = chain(box, terms)
    side = np.eye(3) if box is None else box
    x = np.random.default_rng(2).uniform(-0.4, 1.4, (N, 3)) @ side
    context.setPositions(x)
    potential = diffsim.Sum(terms)
    frame = one_frame(potential, context, x, box)
    for seed in range(100):
        for k, term in enumerate(terms):
            shuffled(term, 10 * seed + k)
        attached(potential, context.getSystem()).update(context, None)
        c = potential.coefficients().detach().numpy()
        for group, where in enumerate(potential.slices()):
            scale = float(np.abs(frame.features[0, where] * c[where]).sum())
            direct = energy(context, 1 << group)
            assert frame.features[0, where] @ c[where] == pytest.approx(direct, abs=1e-9 * scale)


def test_the_energy_is_that_of_the_spline_between_and_beyond_its_knots() -> None:
    for term, low, high in zip(three(3), (0.01, 0.0, -np.pi), (2.0, np.pi, np.pi), strict=True):
        q = np.linspace(low, high, 301)
        step = 1e-6
        slope = (term.energy(q + step) - term.energy(q - step)) / (2 * step)
        inside = slice(1, -1)
        assert torch.allclose(-slope[:, inside], term.force(q)[:, inside], rtol=1e-6, atol=1e-5)


def test_a_bond_beyond_its_table_is_drawn_back() -> None:
    """Even where the table falls outwards, with a force that is finite at any length."""
    bond = diffsim.BondSpline(0.3, 0.5, 12)
    with torch.no_grad():
        bond.values.copy_(-((torch.linspace(-1, 1, 12, dtype=torch.float64)) ** 2)[None] * 100)
    system = empty_system(2, np.eye(3))
    bond.attach(system, bonds=[(0, 1)], periodic=False)
    context = context_of(system)
    for r, sign in [
        (0.0, 0.0),
        (1e-3, 1.0),
        (0.299, 1.0),
        (0.501, -1.0),
        (0.7, -1.0),
        (50.0, -1.0),
    ]:
        context.setPositions([[0, 0, 0], [r, 0, 0]])
        force = context.getState(getForces=True).getForces(asNumpy=True)._value[1, 0]
        assert force == pytest.approx(50.0 * sign, rel=1e-6)


def test_forces_of_an_angle_vanish_where_three_particles_are_in_line() -> None:
    system = empty_system(3, np.eye(3))
    angle = shuffled(diffsim.AngleSpline(12), 4, 50.0)
    angle.attach(system, triples=[(0, 1, 2)], periodic=False)
    context = context_of(system)
    for along in (1.0, -1.0):
        for bend in (0.0, 1e-9, 1e-5, 1e-3):
            x = np.array([[0.1, 0, 0], [0, 0, 0], [0.1 * along, 0.1 * bend, 0]])
            context.setPositions(x)
            forces = context.getState(getForces=True).getForces(asNumpy=True)._value
            assert np.abs(forces).max() <= 1e5 * bend


def test_tuples_between_molecules_count_for_the_virial_and_those_within_do_not() -> None:
    """Against energies of scaled boxes, in which molecules are moved as wholes."""
    box = BOXES["skewed"]
    system = empty_system(12, box)
    holds = openmm.HarmonicBondForce()
    for first in range(0, 12, 3):
        holds.addBond(first, first + 1, 0.1, 0.0)
        holds.addBond(first + 1, first + 2, 0.1, 1.0)
    system.addForce(holds)
    angles = shuffled(diffsim.AngleSpline(14, n_types=2), 3)
    triples = [(0, 1, 2), (0, 4, 8), (3, 2, 10), (3, 4, 5)]
    angles.attach(system, triples=triples, types=[0, 1, 1, 0], periodic=True)
    context = context_of(system)
    starts = np.repeat(np.random.default_rng(3).uniform(0, 1, (4, 3)) @ box, 3, axis=0)
    x = starts + np.random.default_rng(4).normal(scale=0.1, size=(12, 3))
    frame = one_frame(angles, context, x, box)
    virial = frame.learned.virials[0]
    assert not virial[:14].any() and virial[14:].any()
    others = RestForces(frozenset({"HarmonicBondForce"}), context)
    expected = others.virial(x, box)
    assert virial @ angles.coefficients().detach().numpy() == pytest.approx(expected, rel=1e-5)


def test_bonds_make_molecules_without_an_energy_beside_their_own() -> None:
    system = empty_system(6, 2 * np.eye(3))
    bond = diffsim.BondSpline(0.1, 0.3, name="mine")
    force = bond.attach(system, bonds=[(0, 1), (1, 2), (3, 4)])
    assert isinstance(force, openmm.CustomCompoundBondForce)
    assert context_of(system).getMolecules() == ((0, 1, 2), (3, 4), (5,))
    assert [has_energy(f) for f in system.getForces()] == [True, False]
    again = openmm.XmlSerializer.clone(portable_system(system))
    assert attached(bond, again).force.getNumBonds() == 3


def test_bonds_of_other_forces_are_the_default_and_make_molecules_themselves() -> None:
    system = empty_system(5, 2 * np.eye(3))
    known = openmm.HarmonicBondForce()
    for i in range(3):
        known.addBond(i, i + 1, 0.1, 5.0)
    system.addForce(known)
    system.addConstraint(3, 4, 0.1)
    terms = [diffsim.BondSpline(0.1, 0.3), diffsim.AngleSpline(), diffsim.DihedralSpline()]
    assert [f.getNumBonds() for f in diffsim.Sum(terms).attach(system)] == [3, 3, 2]
    assert system.getNumForces() == 4


def test_bonds_of_a_topology() -> None:
    top = topology(4)
    atoms = list(top.atoms())
    top.addBond(atoms[2], atoms[0])
    top.addBond(atoms[0], atoms[1])
    system = empty_system(4, 2 * np.eye(3))
    force = diffsim.AngleSpline().attach(system, triples=top)
    assert [tuple(force.getBondParameters(0)[0])] == [(1, 0, 2)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bonds": [(0, 1), (1, 0)]}, "given twice"),
        ({"bonds": [(0, 0)]}, "different particles"),
        ({"bonds": [(0, 9)]}, "0 .. 3"),
        ({"bonds": [(0, 1, 2)]}, "2 particles each"),
        ({"bonds": [0, 1]}, "2 particles each"),
        ({"bonds": []}, "2 particles each"),
        ({"bonds": [(2, 3)]}, "constraint"),
        ({"bonds": [(0, 1)], "types": [2]}, "expected 0 .. 1"),
        ({"bonds": [(0, 1)], "types": [0, 1]}, "for each of 1 bonds"),
        ({"bonds": [(0, 1)]}, "types="),
        ({}, "no bonds are known"),
    ],
)
def test_bad_bonds_are_refused(arguments: dict[str, Any], words: str) -> None:
    system = empty_system(4, 2 * np.eye(3))
    system.addConstraint(2, 3, 0.1)
    with pytest.raises(AttachError, match=words):
        diffsim.BondSpline(0.1, 0.3, n_types=2).attach(system, **arguments)
    assert system.getNumForces() == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: diffsim.BondSpline(0.5, 0.3), "r_min < r_max"),
        (lambda: diffsim.BondSpline(0.0, 0.3), "r_min < r_max"),
        (lambda: diffsim.AngleSpline(3), "knots"),
        (lambda: diffsim.BondSpline(0.1, 0.3, wall_slope=-1), "wall_slope"),
        (lambda: diffsim.AngleSpline().set_table(np.arange(0, 180, 2), np.zeros(90)), "degrees"),
        (lambda: diffsim.AngleSpline().set_table([0, 1, 2, 3], [0, 1, 2, 3], type=1), "type"),
        (lambda: diffsim.DihedralSpline().boltzmann_inversion([1, 2, 3], [1, 1, 1], 300), "least"),
    ],
)
def test_what_makes_no_table_is_refused(make: Any, words: str) -> None:
    with pytest.raises(PotentialError, match=words):
        make()


# Ideal gases, known exactly -----------------------------------------------------------------------


class Gas:
    """A molecule whose bonds, angle or dihedral angle alone are learned; q drawn exactly."""

    def __init__(
        self, potential: Any, observable: diffsim.Observable, u: Any, low: float, high: float
    ):
        self.potential, self.observable, self.u = potential, observable, u
        self.q = np.linspace(low, high, 20001)

    def density(self, u: Any) -> Array:
        """p(q) on the fine grid, for u(q)."""
        p = self.potential.measure(self.q) * np.exp(-u(self.q) / THERMAL)
        return np.asarray(p / np.trapezoid(p, self.q))

    def binned(self, p: Array) -> Array:
        """The mean of p in each bin of the observable."""
        edges = self.observable.edges
        whole = np.concatenate([[0], np.cumsum(0.5 * (p[1:] + p[:-1]) * np.diff(self.q))])
        return np.diff(np.interp(edges, self.q, whole)) / np.diff(edges)

    def samples(self, n: int, seed: int) -> diffsim.Samples:
        """n independent molecules, run with u."""
        size = self.potential.n_particles
        system = empty_system(size, 3 * np.eye(3))
        self.potential.attach(system, [tuple(range(size))], periodic=False)
        self.potential.set_table(self.q[::20], self.u(self.q[::20]))
        context = context_of(system)
        p = self.density(lambda q: self.potential.energy(q)[0].detach().numpy())
        whole = np.concatenate([[0], np.cumsum(0.5 * (p[1:] + p[:-1]))])
        drawn = np.interp(np.random.default_rng(seed).uniform(0, whole[-1], n), whole, self.q)
        recorder = FrameRecorder(self.potential, context, [self.observable], KELVIN)
        for q in drawn:
            recorder.add(_PLACED[size](q), None)
        c = self.potential.coefficients().detach().numpy()
        return recorder.samples(c, KELVIN, None, 1)


def _bent(theta: float) -> Array:
    return np.array([[0.3, 0, 0], [0, 0, 0], [0.2 * np.cos(theta), 0.2 * np.sin(theta), 0]])


def _twisted(phi: float) -> Array:
    first, last = np.array([0.3, 0, 0]), np.array([0.3 * np.cos(phi), 0.3 * np.sin(phi), 0.2])
    return np.array([first, np.zeros(3), [0, 0, 0.2], last])


_PLACED = {2: lambda r: np.array([[0, 0, 0], [0, r, 0]]), 3: _bent, 4: _twisted}


def gas(kind: str) -> Gas:
    if kind == "dimer":
        bond = diffsim.BondSpline(0.28, 0.48, 30)
        observable = diffsim.BondDistribution(0.28, 0.48, 25, bonds=[(0, 1)])
        return Gas(bond, observable, lambda r: 4000 * (r - 0.37) ** 2, 0.28, 0.48)
    if kind == "trimer":
        angle = diffsim.AngleSpline(30)
        observable = diffsim.AngleDistribution(triples=[(0, 1, 2)], bins=20)
        return Gas(angle, observable, lambda t: 6 * np.cos(t) + 3 * np.cos(2 * t), 0, np.pi)
    torsion = diffsim.DihedralSpline(36)
    observable = diffsim.DihedralDistribution(18, quadruples=[(0, 1, 2, 3)])
    return Gas(torsion, observable, lambda f: 3 * np.cos(3 * f) + 2 * np.sin(f), -np.pi, np.pi)


@pytest.mark.parametrize("kind", ["dimer", "trimer", "tetramer"])
def test_an_ideal_gas_has_its_exact_distribution(kind: str) -> None:
    """Also at other parameters, reweighted: within four standard errors in each bin."""
    one = gas(kind)
    samples = one.samples(4000, 3)
    grown = flat_parameters(one.potential) * 1.2
    for theta in (flat_parameters(one.potential), grown):
        found = samples.at(theta).estimate(one.observable)
        c = theta.numpy()
        p = one.density(lambda q, c=c: one.potential.basis.values(q) @ c)
        expected = one.binned(p)
        counted = expected > 0.02 * expected.max()
        off = np.abs(found.value - expected)[counted] / found.standard_error[counted]
        assert off.max() < 4


@pytest.mark.parametrize("kind", ["dimer", "trimer", "tetramer"])
def test_gradients_are_those_of_the_same_frames(kind: str) -> None:
    """Reweighted averages of 300 frames by differences, at another theta than the frames'."""
    one = gas(kind)
    samples = one.samples(300, 4)
    theta = flat_parameters(one.potential) * 1.1
    jacobian = samples.at(theta).jacobian(one.observable)
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=len(theta)))
    step = 1e-5
    ahead, behind = (
        samples.at(theta + s * step * direction).average(one.observable).detach().numpy()
        for s in (1, -1)
    )
    slope = np.asarray(jacobian) @ direction.numpy()
    scale = np.abs(slope).max()
    assert np.allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("kind", ["dimer", "trimer", "tetramer"])
def test_inversion_of_an_exact_distribution_gives_its_potential(kind: str) -> None:
    one = gas(kind)
    q = 0.5 * (one.observable.edges[1:] + one.observable.edges[:-1])
    p = np.interp(q, one.q, one.density(one.u))
    one.potential.boltzmann_inversion(q, p, KELVIN)
    kept = q[p > 0.02 * p.max()]
    found, expected = one.potential.energy(kept)[0].detach().numpy(), one.u(kept)
    assert np.ptp(found - expected) < 0.1 * THERMAL
    far = one.potential.energy(one.q)[0].detach().numpy()
    assert far.min() > -0.1 * THERMAL  # what was not seen is not preferred


Q = np.linspace(0.0, 1.0, 40)
PEAK = np.exp(-((Q - 0.6) ** 2) / 0.005)


@pytest.mark.parametrize(
    ("make", "q", "words"),
    [
        (
            lambda: diffsim.AngleSpline(),
            180 * Q,
            "theta: got .*, expected 0 to 3.142: .* in rad; .*degrees",
        ),
        (
            lambda: diffsim.DihedralSpline(),
            360 * Q - 180,
            "phi: got -180, expected -6.283 to 6.283",
        ),
        (
            lambda: diffsim.BondSpline(0.1, 0.2),
            1.0 + Q,
            "r: got a distribution most of which lies beyond",
        ),
        (lambda: diffsim.BondSpline(0.1, 0.2), -1.0 - Q, "r: got -1, expected 0 to inf"),
    ],
)
def test_a_distribution_in_another_unit_is_noticed(make: Any, q: Array, words: str) -> None:
    with pytest.raises(PotentialError, match=words):
        make().boltzmann_inversion(q, PEAK, KELVIN)
    own = {"BondSpline": unit.angstrom}.get(type(make()).__name__, unit.degree)
    assert make().boltzmann_inversion(np.abs(q) * own, PEAK, KELVIN).values.any()


def test_a_place_that_cannot_be_is_no_energy() -> None:
    for q in (109.0, np.nan, "far"):
        with pytest.raises(PotentialError, match="theta: got"):
            diffsim.AngleSpline().energy(q)
    for p in ("high", PEAK[:3], np.nan * PEAK):
        with pytest.raises(PotentialError, match="p: expected finite numbers"):
            diffsim.BondSpline(0.1, 0.2).boltzmann_inversion(0.1 + 0.1 * Q, p, KELVIN)


def test_the_prior_knows_the_zero_and_leaves_a_line_open() -> None:
    bond = diffsim.BondSpline(0.3, 0.5, 20, n_types=2)
    precision = bond.prior_precision(KELVIN, 0.4, 200.0)
    centre = bond.zero[0].numpy() @ bond.basis.centers
    line = np.kron([1.0, 0.0], bond.basis.centers - centre)
    assert line @ precision @ line < 1e-9 * precision.max()
    constant = np.kron([0.0, 1.0], np.ones(20))
    assert constant @ precision @ constant == pytest.approx((1e3 / THERMAL) ** 2)
