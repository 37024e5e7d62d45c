"""Liquid-state theory is right where it must be, and near the sampled covariances elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import liquids
import numpy as np
import openmm
import pytest
import torch
from liquids import CUTOFF, EPSILON, SIGMA, Array
from networks import embedded
from openmm import app, unit

import openmm_diffsim as diffsim
from openmm_diffsim import RDF, AngleDistribution, Pressure, SplinePair, boltzmann_inversion
from openmm_diffsim.errors import PotentialError, TargetError, UnitError
from openmm_diffsim.potentials import SplineBasis, pair_index
from openmm_diffsim.refinement.species import Species
from openmm_diffsim.refinement.theory import (
    Interaction,
    LiquidStructure,
    LiquidTheory,
    radial_transforms,
)
from openmm_diffsim.refinement.theory import liquid as liquid_theory
from openmm_diffsim.units import BAR, beta

KELVIN = liquids.kelvin(1.5)
BETA = beta(KELVIN)


# The radial Fourier transform -------------------------------------------------------------------


def test_the_transform_of_a_gaussian_is_a_gaussian_and_back() -> None:
    r = (np.arange(100) + 0.5) * 0.08
    forward, backward = radial_transforms(r)
    k = np.pi * np.arange(1, 101) / 8.0
    f = np.exp(-(r**2) / 2)
    np.testing.assert_allclose(forward @ f, (2 * np.pi) ** 1.5 * np.exp(-(k**2) / 2), atol=1e-9)
    noise = np.random.default_rng(1).normal(size=100)
    np.testing.assert_allclose(backward @ (forward @ noise), noise, atol=1e-10)


# Exact to first order in the density ------------------------------------------------------------

GRID = (np.arange(400) + 0.5) * (4 * CUTOFF / 400)
KNOWN = 200  # of its points: what a simulation would have seen
BASIS = SplineBasis(0.8 * SIGMA, CUTOFF, 40)


def dilute_g(c: Array, densities: Array) -> Array:
    """g_ab = e^(-beta u_ab) (1 + sum_c rho_c int f_ac f_cb), exact to first order in the density.

    c [pairs, coefficients], densities [types] in 1/nm^3; returns [pairs, KNOWN].
    """
    forward, backward = radial_transforms(GRID)
    boltzmann = np.exp(-BETA * c @ BASIS.values(GRID).T)
    mayer = (boltzmann - 1) @ forward.T
    index = pair_index(len(densities))
    rows, columns = np.triu_indices(len(densities))
    bridges = [
        sum(densities[s] * mayer[index[a, s]] * mayer[index[s, b]] for s in range(len(densities)))
        for a, b in zip(rows, columns, strict=True)
    ]
    return np.asarray(boltzmann * (1 + np.array(bridges) @ backward.T))[:, :KNOWN]


def virial_pressure(c: Array, densities: Array) -> float:
    """P - rho k T in bar, of the dilute g."""
    rows, columns = np.triu_indices(len(densities))
    r, g = GRID[:KNOWN], dilute_g(c, densities)
    integrand = g * (c @ BASIS.derivatives(r).T) * r**3
    pairs = np.where(rows == columns, 1.0, 2.0) * densities[rows] * densities[columns]
    return float(-2 * np.pi / 3 * BAR * (r[1] - r[0]) * pairs @ integrand.sum(axis=1))


def structure_of(r: Array, g: Array, n_of_type: Array, volume: float) -> LiquidStructure:
    """Of a fluid in which each pair of types has its own u(r), in the order of the g(r)."""
    each = Interaction(BASIS, np.arange(len(g)), len(g))
    return LiquidStructure(r, g, n_of_type, volume, BETA, [each])


def response_of(structure: LiquidStructure) -> Array:
    """dg/dc, [pairs, bins, pairs of types, coefficients]."""
    n_pairs, n_bins = structure.g.shape
    return structure.rdf_response().reshape(n_pairs, n_bins, n_pairs, -1)


def pressure_response_of(structure: LiquidStructure, c: Array) -> Array:
    """dP/dc at coefficients c [pairs of types, coefficients], of the same shape."""
    found = structure.pressure_response(c.ravel())
    return found.reshape(c.shape)


def dilute_structure(c: Array, densities: Array, n: float = 1e8) -> LiquidStructure:
    """As if it were measured in a box so large that its size does not matter."""
    volume = n / densities.sum()
    return structure_of(GRID[:KNOWN], dilute_g(c, densities), densities * volume, volume)


def one_type() -> Array:
    return liquids.lennard_jones().spline_coefficients().detach().numpy()


def three_pairs() -> Array:
    """Unlike in everything: 0-0, 0-1 and 1-1 differ in size and strength."""
    sigma, epsilon = SIGMA * np.array([1.0, 1.1, 1.05]), EPSILON * np.array([1.0, 1.3, 0.5])
    pair = liquids.lennard_jones(sigma, epsilon, n_types=2)
    return pair.spline_coefficients().detach().numpy()


CASES = {"one type": (one_type, [1.0]), "two types": (three_pairs, [0.4, 0.6])}
BUMPS = [(0, 9), (0, 20), (1, 9), (1, 14), (2, 10), (2, 30)]  # pair of types, coefficient


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> None:
    """g(r) at points, as the exact one is here, and not in bins."""
    monkeypatch.setattr(
        liquid_theory, "_nodes", lambda r, width: (r[:, None], np.full((len(r), 1), width))
    )


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize("case", CASES)
def test_the_response_of_g_is_exact_to_first_order_in_the_density(case: str) -> None:
    make, shares = CASES[case]
    c = make()
    errors, corrections = [], []
    for reduced in (0.01, 0.02, 0.04):
        densities = reduced / SIGMA**3 * np.array(shares)
        response = response_of(dilute_structure(c, densities))
        assert response.shape == (len(c), KNOWN, len(c), BASIS.n_coefficients)
        worst, leading = 0.0, 0.0
        for pair, k in BUMPS:
            if pair >= len(c):
                continue
            step = np.zeros_like(c)
            step[pair, k] = 1e-4
            exact = (dilute_g(c + step, densities) - dilute_g(c - step, densities)) / 2e-4
            simple = np.zeros_like(exact)
            simple[pair] = -BETA * dilute_g(c, densities)[pair] * BASIS.values(GRID[:KNOWN])[:, k]
            worst = max(worst, np.abs(response[:, :, pair, k] - exact).max())
            leading = max(leading, np.abs(simple - exact).max())
        errors.append(worst)
        corrections.append(leading)
    # What is left is of second order, -beta g B alone is wrong in first order.
    assert errors[0] < 0.1 * corrections[0]
    for small, large in ((0, 1), (1, 2)):
        assert 3.2 < errors[large] / errors[small] < 5.0
        assert 1.8 < corrections[large] / corrections[small] < 2.2


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize("case", CASES)
def test_the_response_of_the_pressure_is_exact_to_the_third_virial_coefficient(case: str) -> None:
    make, shares = CASES[case]
    c = make()
    errors = []
    for reduced in (0.01, 0.02):
        densities = reduced / SIGMA**3 * np.array(shares)
        structure = dilute_structure(c, densities)
        found = pressure_response_of(structure, c)
        assert found.shape == c.shape
        exact = np.zeros_like(c)
        for pair, k in np.ndindex(*c.shape):
            step = np.zeros_like(c)
            step[pair, k] = 1e-3
            exact[pair, k] = (
                virial_pressure(c + step, densities) - virial_pressure(c - step, densities)
            ) / 2e-3
        errors.append(np.abs(found - exact).max() / np.abs(exact).max())
    assert errors[0] < 3e-3  # of second order in the density
    assert 3.0 < errors[1] / errors[0] < 5.0


def test_a_dilute_gas_answers_pair_by_pair() -> None:
    densities = np.array([1e-6 / SIGMA**3])
    response = response_of(dilute_structure(one_type(), densities))[0, :, 0]
    width, g = GRID[1] - GRID[0], dilute_g(one_type(), densities)[0]
    inside = GRID[:KNOWN, None] + width * (np.arange(200) + 0.5 - 100) / 200
    values = BASIS.values(inside.ravel()).reshape(*inside.shape, -1)
    binned = np.einsum("rn,rnk->rk", inside**2 / np.sum(inside**2, axis=1, keepdims=True), values)
    np.testing.assert_allclose(response, -BETA * g[:, None] * binned, atol=2e-4)


def test_a_small_box_has_the_structure_of_a_large_one() -> None:
    """With N particles, and g normalised by N (N - 1), rho int (g - 1) over the box is zero.

    In the large system it is S(0) - 1, so g is lower by (S(0) - 1) / N everywhere.
    """
    densities = np.array([0.06 / SIGMA**3])
    large = dilute_structure(one_type(), densities)
    excess = float(large.structure_factor[0, 0, 0]) - 1
    g = large.g - excess / 50
    small, taken_for_large = (
        structure_of(large.r, g, np.array([n]), n / densities[0]) for n in (50.0, 1e8)
    )
    wrong = np.abs(taken_for_large.structure_factor - large.structure_factor).max()
    assert wrong > 0.04 * excess > 0.005
    assert np.abs(small.structure_factor - large.structure_factor).max() < 0.4 * wrong


# Two names for one kind of particle -------------------------------------------------------------


@pytest.fixture(scope="module")
def dense() -> LiquidStructure:
    """Something like the g(r) of a liquid, exact for no potential, in a box of 100."""
    r = (np.arange(60) + 0.5) * (2.5 * SIGMA / 60)
    x = r / SIGMA
    core = 1 / (1 + np.exp(-(x - 0.98) / 0.02))
    g = core * (1 + 1.2 * np.exp(-(x - 1.0) / 0.45) * np.cos(2 * np.pi * (x - 1.07) / 0.95))
    g = g * (1 - (1 - 0.1) / 100)  # at large r as a fixed number of particles has it
    return structure_of(r, g[None], np.array([100.0]), 100 * SIGMA**3 / 0.6)


@pytest.fixture(scope="module")
def labelled(dense: LiquidStructure) -> LiquidStructure:
    g = np.repeat(dense.g, 3, axis=0)
    return structure_of(dense.r, g, np.array([30.0, 70.0]), dense.volume)


def test_two_names_for_one_kind_of_particle_give_the_same_response(
    dense: LiquidStructure, labelled: LiquidStructure
) -> None:
    one = response_of(dense)[0, :, 0]
    two = response_of(labelled).sum(axis=2)  # all three potentials change alike
    scale = np.abs(one).max()
    for pair in range(3):
        np.testing.assert_allclose(two[pair], one, atol=1e-2 * scale)


def test_two_names_for_one_kind_of_particle_give_the_same_pressure_response(
    dense: LiquidStructure, labelled: LiquidStructure
) -> None:
    c = one_type()
    one = pressure_response_of(dense, c)[0]
    two = pressure_response_of(labelled, np.repeat(c, 3, axis=0)).sum(axis=0)
    np.testing.assert_allclose(two, one, atol=1e-2 * np.abs(one).max())


def test_two_names_for_one_kind_of_particle_give_the_same_covariance(
    dense: LiquidStructure, labelled: LiquidStructure
) -> None:
    share = labelled.ideal_counts[:, 0] / labelled.ideal_counts[:, 0].sum()
    np.testing.assert_allclose(labelled.ideal_counts.sum(axis=0), dense.ideal_counts[0], rtol=1e-12)
    two = np.einsum("p,prqs,q->rs", share, labelled.rdf_covariance(), share)
    one = dense.rdf_covariance()[0, :, 0]
    # C_rs in units of the errors of r and s: 1 on the diagonal
    error = np.sqrt(np.maximum(np.diag(one), 1e-3 * np.diag(one).max()))
    scale = np.outer(error, error)
    np.testing.assert_allclose(two / scale, one / scale, atol=0.02)


def test_the_covariance_is_symmetric_and_positive(labelled: LiquidStructure) -> None:
    full = labelled.rdf_covariance()
    flat = full.reshape(180, 180)
    np.testing.assert_allclose(flat, flat.T, rtol=1e-12)
    assert np.linalg.eigvalsh(flat).min() > -1e-3 * np.diag(flat).max()


# Against the fluctuations of a simulation -------------------------------------------------------


@dataclass
class Fluid:
    """What a simulation of a small fluid says, with errors from 20 blocks."""

    samples: diffsim.Samples
    theory: LiquidTheory
    rdf: RDF
    pressure: Pressure

    @property
    def structure(self) -> LiquidStructure:
        found = self.theory.structure(self.samples.at())
        assert found is not None
        return found

    def theory_response(self, direction: Array) -> Array:
        """d(g, P) along a change of the coefficients, [bins + 1]."""
        c = self.samples.at().coefficients.detach().numpy()
        observables = [self.rdf, self.pressure]
        jacobian, known = self.theory.jacobian(self.structure, observables, c)
        assert known.all()
        return jacobian @ direction

    def sampled_response(self, direction: Array, weights: Array) -> tuple[Array, Array]:
        """weights @ d(g, P) by the covariance of the frames, and its standard error."""
        s = self.samples
        values = np.concatenate(
            [s.at().values(o).detach().numpy() for o in (self.rdf, self.pressure)], axis=1
        )
        change = s.features @ direction
        virial = BAR * s.virial_features @ direction / (3 * s.volume)
        deviations = (values - values.mean(axis=0)) * (change - change.mean())[:, None]
        per_frame = -beta(s.temperature) * deviations @ weights.T + np.outer(virial, weights[:, -1])
        blocks = np.array([part.mean(axis=0) for part in np.array_split(per_frame, 20)])
        return blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / 20**0.5


def fluid(n: int, density: float, temperature: float, frames: int, every: int) -> Fluid:
    pair = liquids.lennard_jones(knots=30)
    sim = liquids.simulation(pair, n, density, temperature, seed=3)
    point = diffsim.StatePoint(sim, pair)
    reach = min(0.5 * liquids.box_length(n, density), 2.5 * CUTOFF)
    rdf, pressure = RDF(0.999 * reach, round(reach / (0.03 * SIGMA))), Pressure()
    theory = LiquidTheory(point, Species(point), [rdf.r])
    record = [rdf, pressure, *theory.rdfs]
    samples = point.sample(frames * every, every, record, equilibration=2000)
    return Fluid(samples, theory, rdf, pressure)


@pytest.fixture(scope="module")
def gas() -> Fluid:
    return fluid(64, 0.1, 2.0, 2000, 35)


@pytest.fixture(scope="module")
def liquid() -> Fluid:
    return fluid(64, 0.6, 1.5, 2000, 20)


def directions(pair: Any) -> dict[str, Array]:
    """Changes of the coefficients: a deeper well, and a bump beyond it."""
    stronger = liquids.lennard_jones(epsilon=1.05 * EPSILON, knots=30)
    x = pair.basis.centers / SIGMA
    return {
        "well": (stronger.coefficients() - pair.coefficients()).detach().numpy(),
        "bump": 0.05 * np.exp(-(((x - 1.5) / 0.15) ** 2)),
    }


def windows(rdf: RDF, edges: list[float]) -> Array:
    """Mean of g over windows (sigma), weighted with the volume; and the pressure alone."""
    x = rdf.r / SIGMA
    inside = [(x >= low) & (x < high) for low, high in pairwise(edges)]
    rows = [np.append(rdf.shells * i / rdf.shells[i].sum(), 0.0) for i in inside]
    return np.array([*rows, np.append(np.zeros(rdf.n_values), 1.0)])


@pytest.mark.parametrize("name", ["well", "bump"])
def test_a_dilute_gas_responds_as_its_fluctuations_say(gas: Fluid, name: str) -> None:
    direction = directions(gas.samples.potential)[name]
    weights = windows(gas.rdf, [0.85, 0.95, 1.1, 1.3, 1.7, 2.0, 3.0])
    found, error = gas.sampled_response(direction, weights)
    expected = weights @ gas.theory_response(direction)
    # 4 standard errors, and 4 % of the largest response for what is of second order
    scale = np.append(np.full(len(found) - 1, np.abs(expected[:-1]).max()), abs(expected[-1]))
    assert (np.abs(found - expected) < 4 * error + 0.04 * scale).all(), (found, expected, error)
    assert np.abs(found / error)[[2, 3, -1]].max() > 10  # there is a signal to compare


@pytest.mark.parametrize("name", ["well", "bump"])
def test_a_liquid_responds_nearly_as_its_fluctuations_say(liquid: Fluid, name: str) -> None:
    direction = directions(liquid.samples.potential)[name]
    weights = windows(liquid.rdf, [0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.7, 2.0, 2.3])
    found, error = liquid.sampled_response(direction, weights)
    expected = weights @ liquid.theory_response(direction)
    difference = found - expected
    # hypernetted chains are good to 5-30 %: 25 % in the root mean square, plus the noise
    rms, noise = np.sqrt(np.mean(difference[:-1] ** 2)), np.sqrt(np.mean(error[:-1] ** 2))
    assert rms < 0.25 * np.sqrt(np.mean(expected[:-1] ** 2)) + 2 * noise
    assert abs(difference[-1]) < 0.25 * abs(expected[-1]) + 4 * error[-1]


def sampled_variance(samples: diffsim.Samples, rdf: RDF, v: Array) -> tuple[float, float]:
    """Variance of v @ g in one frame, and its standard error from 20 blocks."""
    series = samples.at().values(rdf).numpy(force=True) @ v
    squares = (series - series.mean()) ** 2
    blocks = np.array([part.mean() for part in np.array_split(squares, 20)])
    return float(blocks.mean()), float(blocks.std(ddof=1) / 20**0.5)


@pytest.mark.parametrize("which", ["gas", "liquid"])
def test_the_variance_of_g_in_one_frame_is_that_of_the_frames(
    which: str, request: pytest.FixtureRequest
) -> None:
    state: Fluid = request.getfixturevalue(which)
    covariance, counting = state.theory.covariance(state.structure, [state.rdf])
    assert np.isfinite(counting).all()
    g = state.samples.at().values(state.rdf).numpy(force=True)
    seen = g.mean(axis=0) > 0.3
    ratio = np.diag(covariance)[seen] / g.var(axis=0)[seen]
    # a variance from 2000 frames is known to 3 % and more where they are correlated
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
    assert np.abs(ratio - 1).max() < 0.3


@pytest.mark.parametrize("reach", [1.5, 2.0])
def test_long_waves_of_a_liquid_fluctuate_as_little_as_theory_says(
    liquid: Fluid, reach: float
) -> None:
    """Pairs within a sphere: known several times better than independent bins would have it."""
    v = liquid.rdf.shells * (liquid.rdf.r < reach * SIGMA)
    covariance, _ = liquid.theory.covariance(liquid.structure, [liquid.rdf])
    found, error = sampled_variance(liquid.samples, liquid.rdf, v)
    expected = v @ covariance @ v
    assert abs(found - expected) < 4 * error + 0.15 * expected, (found, expected, error)
    assert expected < 0.3 * v**2 @ np.diag(covariance)


def test_theory_may_have_other_bins_than_the_target(liquid: Fluid) -> None:
    """The shot noise belongs to the bins of the target, the rest is interpolated."""
    wide = RDF(2.3 * SIGMA, 25)
    fine, _ = liquid.theory.covariance(liquid.structure, [liquid.rdf])
    coarse, counting = liquid.theory.covariance(liquid.structure, [wide])
    assert np.isfinite(counting).all()
    share = np.zeros((25, liquid.rdf.n_values))  # of the fine shells in the wide ones
    for row, (low, high) in enumerate(pairwise(wide.edges)):
        lower = np.maximum(liquid.rdf.edges[:-1], low)
        upper = np.maximum(np.minimum(liquid.rdf.edges[1:], high), lower)
        share[row] = (upper**3 - lower**3) / (high**3 - low**3)
    merged = np.diag(share @ fine @ share.T)
    seen = wide.r > 1.05 * SIGMA
    np.testing.assert_allclose(np.diag(coarse)[seen], merged[seen], rtol=0.25)
    two, counting = liquid.theory.covariance(liquid.structure, [wide, Pressure()])
    np.testing.assert_allclose(two[:25, :25], coarse, rtol=1e-12)
    assert np.isnan(counting[25:]).all()


# Where theory has no say ------------------------------------------------------------------------


def why_not(point: diffsim.StatePoint, rdf: RDF | None = None) -> str:
    return LiquidTheory.why_not(point, Species(point), [] if rdf is None else [rdf.r])


def fluid_with(
    prepare: Callable[[openmm.System], None] = lambda system: None,
    particles: int = 64,
    n_types: int = 1,
    attach: Mapping[str, Any] = MappingProxyType({}),
    potential: Any = None,
) -> diffsim.StatePoint:
    """A fluid of single sites whose System has something besides."""
    pair = potential or liquids.lennard_jones(n_types=n_types)
    system = openmm.System()
    length = liquids.box_length(particles, 0.5)
    system.setDefaultPeriodicBoxVectors(*(length * np.eye(3)))
    for _ in range(particles):
        system.addParticle(39.9)
    prepare(system)
    pair.attach(system, **attach)
    platform = openmm.Platform.getPlatform("Reference")
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 1, 0.001)
    sim = app.Simulation(app.Topology(), system, integrator, platform)
    sim.context.setPositions(liquids.lattice(particles, length, 1))
    return diffsim.StatePoint(sim, pair)


def force(made: openmm.Force, *terms: tuple[Any, ...]) -> Callable[[openmm.System], None]:
    """Adds a force with these terms, each a method and its arguments."""

    for method, *arguments in terms:
        getattr(made, method)(*arguments)
    return lambda system: system.addForce(openmm.XmlSerializer.clone(made))


def nonbonded(charge: float, epsilon: float, *terms: tuple[Any, ...]) -> Any:
    own = openmm.NonbondedForce()
    own.setNonbondedMethod(own.CutoffPeriodic)
    own.setCutoffDistance(0.5)
    return force(own, *[("addParticle", charge, 0.3, epsilon)] * 64, *terms)


def site(system: openmm.System) -> None:
    system.setParticleMass(2, 0.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))


def everywhere(expression: str, kind: Any = openmm.CustomExternalForce) -> Any:
    name = "addParticle"
    return force(kind(expression), *[(name, k, []) for k in range(64)])


BESIDES: dict[str, tuple[dict[str, Any], str]] = {
    "a bond": (
        {
            "prepare": force(openmm.HarmonicBondForce(), ("addBond", 0, 1, 0.3, 9.0)),
            "attach": {"exclude_bonds": 0},
        },
        "HarmonicBondForce",
    ),
    "an angle": (
        {"prepare": force(openmm.HarmonicAngleForce(), ("addAngle", 0, 1, 2, 1.0, 9.0))},
        "HarmonicAngleForce",
    ),
    "three bodies": (
        {
            "prepare": force(
                openmm.CustomCompoundBondForce(3, "distance(p1,p2)*distance(p2,p3)"),
                ("addBond", [0, 1, 2], []),
            )
        },
        "CustomCompoundBondForce",
    ),
    "a constraint": (
        {"prepare": lambda s: s.addConstraint(0, 1, 0.3), "attach": {"exclude_bonds": 1}},
        "1 constraints",
    ),
    "a virtual site": ({"prepare": site, "attach": {"exclude_bonds": 1}}, "1 virtual sites"),
    "a wall": ({"prepare": everywhere("z^2")}, "CustomExternalForce"),
    "charges": ({"prepare": nonbonded(0.1, 0.0)}, "NonbondedForce"),
    "dispersion": ({"prepare": nonbonded(0.0, 0.1)}, "NonbondedForce"),
    "an exception": (
        {"prepare": nonbonded(0.0, 0.0, ("addException", 0, 1, 0.1, 0.3, 0.0))},
        "NonbondedForce",
    ),
    "pairs left out": ({"attach": {"exclusions": [(0, 1)]}}, "pairs that it leaves out"),
    "a particle that is held": (
        {"prepare": lambda s: s.setParticleMass(5, 0.0)},
        "particles without mass",
    ),
    "a collective variable": ({"prepare": force(openmm.CustomCVForce("0"))}, "CustomCVForce"),
    "an attached one": ({"prepare": liquids.lennard_jones(name="other").attach}, "other"),
    "its table": (
        {"prepare": partial(liquids.lennard_jones(name="other").attach, backend="table")},
        "other",
    ),
}


@pytest.mark.parametrize("case", BESIDES)
def test_theory_is_for_single_sites_with_learned_pairs_alone(case: str) -> None:
    arguments, name = BESIDES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bonded pairs that interact
        point = fluid_with(**arguments)
    rdf = RDF(0.7, 20)
    target = diffsim.Target(point, rdf, rdf.r, np.ones(20), uncertainty=0.1, as_it_is=True)
    fit = diffsim.Refinement(point.potential, [target])
    (state,) = fit.states
    assert state.theory is None and name in state.why_no_theory
    assert state.recorded() == [rdf]


IDLE: dict[str, Any] = {
    "nothing": lambda system: None,
    "a NonbondedForce of zeros": nonbonded(0.0, 0.0),
    "a learned one that is zero": liquids.lennard_jones(epsilon=0.0, name="zero").attach,
    "its table": partial(liquids.lennard_jones(epsilon=0.0, name="zero").attach, backend="table"),
    "a force without terms": force(openmm.HarmonicBondForce()),
    "no motion of the whole": force(openmm.CMMotionRemover()),
    "a barostat": force(openmm.MonteCarloBarostat(30.0, KELVIN)),
}


@pytest.mark.parametrize("case", IDLE)
def test_what_does_nothing_keeps_theory_from_nothing(case: str) -> None:
    assert why_not(fluid_with(IDLE[case])) == ""


def test_theory_is_silent_about_few_particles() -> None:
    point = fluid_with(n_types=2, attach={"types": [0] * 55 + [1] * 9})
    assert "there are 9 particles, fewer than 10" in why_not(point)


def test_theory_is_silent_where_its_equations_would_be_too_many() -> None:
    kinds = np.repeat(np.arange(7), 10)
    point = fluid_with(particles=70, n_types=7, attach={"types": kinds})
    assert "7 kinds of particles make " in why_not(point, RDF(0.7, 200))
    assert why_not(point, RDF(0.7, 40)) == ""


def test_theory_is_silent_without_a_box() -> None:
    assert why_not(fluid_with(attach={"periodic": False})) == "there is no periodic box"


def test_theory_is_silent_beside_a_network() -> None:
    both = liquids.lennard_jones() + embedded()
    point = fluid_with(potential=both)
    assert why_not(point) == f"{both.name} is more than pair potentials"
    alone = diffsim.StatePoint(point.simulation, next(iter(both)))
    assert "acts NetworkPotential too" in why_not(alone)


def test_theory_that_the_method_is_not_to_use_records_nothing() -> None:
    point, rdf = fluid_with(), RDF(0.7, 20)
    target = diffsim.Target(point, rdf, rdf.r, np.ones(20), uncertainty=0.1, as_it_is=True)
    method = diffsim.GaussNewton(diffsim.GaussNewtonOptions(theory=False))
    (state,) = diffsim.Refinement(point.potential, [target], method).states
    assert state.recorded() == [rdf] and state.why_no_theory == "the method is not to use it"


@pytest.mark.parametrize("bins", [5, 8])
def test_a_target_of_few_bins_leaves_theory_its_own(bins: int) -> None:
    point, rdf = fluid_with(), RDF(0.7, bins, r_min=0.3)
    target = diffsim.Target(point, rdf, rdf.r, np.ones(bins), uncertainty=0.1, as_it_is=True)
    (state,) = diffsim.Refinement(point.potential, [target]).states
    assert state.theory is not None and len(state.theory.rdfs[0].r) >= 20


def test_a_box_that_shrinks_as_far_as_targets_allow_is_not_too_small_for_theory() -> None:
    """At constant pressure its g(r) go no further than cutoff and targets do."""
    point = fluid_with(IDLE["a barostat"])
    rdf = RDF(1.05 * CUTOFF, 30)
    theory = LiquidTheory(point, Species(point), [rdf.r])
    assert theory.rdfs[0].edges[-1] <= rdf.edges[-1]
    still = fluid_with()
    fixed = LiquidTheory(still, Species(still), [rdf.r])
    assert fixed.rdfs[0].edges[-1] > rdf.edges[-1]


def test_shares_say_which_pairs_of_types_an_rdf_counts() -> None:
    pair = liquids.lennard_jones(n_types=2)
    sim = liquids.simulation(pair, 64, platform="Reference", types=[0] * 16 + [1] * 48)
    species = Species(diffsim.StatePoint(sim, pair))
    first, second = np.arange(16), np.arange(16, 64)

    def shares(**atoms: Any) -> Array | None:
        return species.shares(RDF(0.7, 10, **atoms))

    np.testing.assert_allclose(shares(), [1 / 16, 6 / 16, 9 / 16])
    np.testing.assert_allclose(shares(atoms=first), [1, 0, 0])
    np.testing.assert_allclose(shares(atoms=first, atoms2=second), [0, 1, 0])
    np.testing.assert_allclose(shares(atoms=second), [0, 0, 1])
    mixed = shares(atoms=first, atoms2=np.arange(64))
    np.testing.assert_allclose(mixed, [0.25, 0.75, 0])
    assert species.shares(Pressure()) is None


def test_theory_knows_no_angles_nor_an_rdf_of_particles_that_the_potential_leaves_alone() -> None:
    pair = liquids.lennard_jones()
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(2.0 * np.eye(3)))
    for _ in range(40):
        system.addParticle(39.9)
    pair.attach(system, atoms=range(30))
    sim = app.Simulation(
        app.Topology(),
        system,
        openmm.LangevinMiddleIntegrator(100, 1, 0.002),
        openmm.Platform.getPlatform("Reference"),
    )
    sim.context.setPositions(liquids.lattice(40, 2.0, 1))
    point = diffsim.StatePoint(sim, pair)
    species = Species(point)
    theory = LiquidTheory(point, species)
    assert species.shares(RDF(0.7, 10)) is None
    np.testing.assert_allclose(species.shares(RDF(0.7, 10, atoms=range(30))), [1.0])
    rdf, mine = RDF(0.7, 10), RDF(0.7, 12, atoms=range(30))
    angles = AngleDistribution(0.7, 8)
    samples = point.sample(40, 10, [rdf, mine, angles, *theory.rdfs])
    structure = theory.structure(samples.at())
    c = pair.coefficients().detach().numpy()
    expected = [False] * 10 + [True] * 12 + [False] * 8
    np.testing.assert_array_equal(theory.jacobian(structure, [rdf, mine, angles], c)[1], expected)
    counting = theory.covariance(structure, [rdf, mine, angles])[1]
    np.testing.assert_array_equal(np.isfinite(counting), expected)


# Boltzmann inversion ----------------------------------------------------------------------------

FINE = (np.arange(170) + 0.5) * (2.5 * SIGMA / 170)
FAR = (np.arange(270) + 0.5) * (4 * SIGMA / 270)


def dilute(r: Array, epsilon: float = EPSILON) -> Array:
    """g(r) of a Lennard-Jones gas so dilute that it is exp(-beta u)."""
    u = liquids.lennard_jones(epsilon=epsilon, knots=80).energy(r).detach().numpy()[0]
    return np.asarray(np.exp(-BETA * u))


def test_boltzmann_inversion_of_a_dilute_gas_gives_its_potential() -> None:
    spline = boltzmann_inversion(SplinePair(0.8 * SIGMA, CUTOFF, 60), FINE, dilute(FINE), KELVIN)
    r = np.linspace(1.0 * SIGMA, CUTOFF, 100)
    truth = liquids.lennard_jones(knots=80).energy(r).detach().numpy()[0]
    np.testing.assert_allclose(spline.energy(r).detach().numpy()[0], truth, atol=0.02 * EPSILON)


def test_boltzmann_inversion_ends_at_zero_wherever_g_ends() -> None:
    g = 0.5 * dilute(FINE)  # w is off by a constant
    spline = SplinePair(0.8 * SIGMA, CUTOFF, 60)
    boltzmann_inversion(spline, FINE, g, KELVIN, as_it_is=True)
    r = np.linspace(1.05 * SIGMA, CUTOFF, 100)
    truth = liquids.lennard_jones(knots=80).energy(r).detach().numpy()[0]
    np.testing.assert_allclose(spline.energy(r).detach().numpy()[0], truth, atol=0.02 * EPSILON)


def test_boltzmann_inversion_makes_a_steep_core_from_a_g_that_is_zero_there() -> None:
    g = np.where(FINE < 0.95 * SIGMA, 0.0, dilute(FINE))
    spline = boltzmann_inversion(SplinePair(0.6 * SIGMA, CUTOFF, 60), FINE, g, KELVIN)
    first = FINE[np.argmax(g >= 0.05)]
    assert float(spline.core_radius[0]) == pytest.approx(first)
    r = np.linspace(0.3 * SIGMA, first - spline.basis.spacing, 100)
    assert (spline.force(r).detach().numpy() > 50).all()  # repulsive, kJ/mol/nm
    u = spline.energy(r).detach().numpy()[0] * BETA
    assert u[0] > 20 and np.isfinite(u).all()


def test_boltzmann_inversion_is_not_fooled_by_noise() -> None:
    rng = np.random.default_rng(7)
    g = np.maximum(dilute(FINE) + 0.01 * rng.normal(size=len(FINE)), 0.0)
    spline = boltzmann_inversion(SplinePair(0.8 * SIGMA, CUTOFF, 60), FINE, g, KELVIN)
    r = np.linspace(1.0 * SIGMA, CUTOFF, 100)
    truth = liquids.lennard_jones(knots=80).energy(r).detach().numpy()[0]
    # 0.01 in g is 0.01 kT in w where g is near 1, and there is one more error in the shift
    deviation = (spline.energy(r).detach().numpy()[0] - truth) * BETA
    assert np.abs(deviation).max() < 4 * 0.01 * 2**0.5 + 0.02


def test_boltzmann_inversion_sets_one_pair_of_types_only() -> None:
    spline = SplinePair(0.8 * SIGMA, CUTOFF, 60, n_types=2)
    with torch.no_grad():
        spline.values.fill_(1.0)
    before = spline.values.detach().clone()
    boltzmann_inversion(spline, FINE, dilute(FINE), KELVIN, pair=1)
    assert torch.equal(spline.values[0], before[0]) and torch.equal(spline.values[2], before[2])
    assert not torch.allclose(spline.values[1], before[1])
    assert float(spline.core_radius[1]) > float(spline.core_radius[0])
    assert float(spline.core_radius[2]) == float(spline.core_radius[0])


@pytest.mark.parametrize("r, g", [(FINE, np.zeros(170)), (FINE + CUTOFF, dilute(FINE) + 1)])
def test_boltzmann_inversion_refuses_a_g_that_does_not_rise_below_the_cutoff(
    r: Array, g: Array
) -> None:
    spline = SplinePair(0.8 * SIGMA, CUTOFF, 60)
    with pytest.raises(TargetError, match="g\\(r\\)"):
        boltzmann_inversion(spline, r, g, KELVIN)
    assert float(spline.values.detach().abs().max()) == 0.0  # untouched


@pytest.mark.parametrize(
    "given, message",
    [
        ({"temperature": 0.0}, "temperature: got 0"),
        ({"temperature": -120.0}, "temperature: got -120"),
        ({"temperature": np.nan}, "nan"),
        ({"temperature": 120 * unit.angstrom}, "temperature"),
        ({"g": dilute(FINE) - 1}, "h\\(r\\)"),
        ({"r": FAR, "g": 0.7 * dilute(FAR)}, "g does not go to 1.*as_it_is"),
        ({"g": np.cumsum(FINE**2 * dilute(FINE)) * 300}, "g does not go to 1"),
        ({"g": dilute(FINE)[:-1]}, "shapes"),
        ({"g": np.full(170, np.nan)}, "no row of numbers"),
        ({"r": 10 * FINE}, "angstrom"),
        ({"pair": 1}, "pair: got 1, expected a whole number from 0 to 0"),
        ({"pair": -1}, "pair: got -1"),
        ({"least_g": 0.0}, "least_g: got 0"),
    ],
)
def test_boltzmann_inversion_refuses_what_is_no_g_or_no_temperature(
    given: dict[str, Any], message: str
) -> None:
    spline = SplinePair(0.8 * SIGMA, CUTOFF, 60)
    usual = {"r": FINE, "g": dilute(FINE), "temperature": KELVIN}
    with pytest.raises((TargetError, UnitError, PotentialError), match=message):
        boltzmann_inversion(spline, **(usual | given))
    assert float(spline.values.detach().abs().max()) == 0.0


def test_boltzmann_inversion_converts_sorts_and_leaves_out() -> None:
    wanted = boltzmann_inversion(SplinePair(0.8 * SIGMA, CUTOFF, 60), FINE, dilute(FINE), KELVIN)
    r, g = np.append(10 * FINE, 3.0)[::-1], np.append(dilute(FINE), np.nan)[::-1]
    found = SplinePair(0.8 * SIGMA, CUTOFF, 60)
    boltzmann_inversion(found, r * unit.angstrom, g, KELVIN * unit.kelvin)
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-9, atol=1e-9)
