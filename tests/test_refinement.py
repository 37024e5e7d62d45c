"""Fits of small fluids find the potential that made their targets, by every method."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import liquids
import numpy as np
import openmm
import pytest
import torch
from liquids import CUTOFF, EPSILON, SIGMA, Array
from openmm import app

from openmm_diffsim import (
    RDF,
    LennardJones,
    Mie,
    NeuralPair,
    PairPotential,
    Pressure,
    Refinement,
    SplinePair,
    StatePoint,
    Target,
    TemperatureDependent,
    TorchOptimizer,
    boltzmann_inversion,
)
from openmm_diffsim.errors import OverlapError, TargetError
from openmm_diffsim.refinement import FitView, Step
from openmm_diffsim.refinement.initial import match_potential
from openmm_diffsim.statistics.averages import Estimate
from openmm_diffsim.units import BAR

N, DENSITY, TEMPERATURE = 64, 0.5, 1.5  # reduced; half the box is 2.5 sigma
KELVIN = liquids.kelvin(TEMPERATURE)
REACH = 2.4 * SIGMA
EVERY, STEPS = 50, 3000


def point_of(pair: PairPotential, seed: int = 11, **options: Any) -> StatePoint:
    options = {"density": DENSITY, "temperature": TEMPERATURE} | options
    n = options.pop("n", N)
    return StatePoint(liquids.simulation(pair, n, seed=seed, **options), pair)


@dataclass(frozen=True)
class Truth:
    """What a run of the Lennard-Jones fluid measured, and with what error."""

    rdf: RDF
    g: Estimate
    pressure: Estimate


@pytest.fixture(scope="module")
def truth() -> Truth:
    rdf, pressure = RDF(REACH, 48), Pressure()
    samples = point_of(liquids.lennard_jones(), 5).sample(
        30_000, EVERY, [rdf, pressure], equilibration=1000
    )
    return Truth(rdf, samples.estimate(rdf), samples.estimate(pressure))


def rdf_target(truth: Truth, point: StatePoint, **options: Any) -> Target:
    options.setdefault("uncertainty", truth.g.standard_error)
    return Target(point, truth.rdf, truth.rdf.r, truth.g.value, **options)


def refine(
    truth: Truth,
    pair: PairPotential,
    method: Any = "gauss-newton",
    rounds: int = 4,
    steps: int = STEPS,
    **options: Any,
) -> Refinement:
    """A fit of the g(r) of the truth; ``options`` are those of the target."""
    fit = Refinement(pair, [rdf_target(truth, point_of(pair), **options)], method)
    return fit.run(rounds, steps, EVERY, progress=False)


def spline(truth: Truth) -> SplinePair:
    """The Boltzmann-inverted target."""
    pair = SplinePair(0.8 * SIGMA, CUTOFF, 40)
    return boltzmann_inversion(pair, truth.rdf.r, truth.g.value, KELVIN)


def assert_recovered(
    parameter: Any, expected: Any, error: Any, name: str = "", most: float = 4.0
) -> None:
    """Within ``most`` standard errors."""
    z = (np.asarray(parameter.detach().numpy()) - expected) / error
    assert np.abs(z).max() < most, f"{name}: {parameter} should be {expected} +- {error}"


def covariance_of(fit: Refinement) -> Array:
    """Of the parameters, by the last update."""
    assert fit.last_step is not None and fit.last_step.covariance is not None
    return fit.last_step.covariance


def best_rms(fit: Refinement) -> float:
    """Of g(r), over the rounds that followed the first update."""
    return min(entry.rdf_rms for entry in fit.history[1:])


# Parameters of a closed form --------------------------------------------------------------------


@pytest.fixture(scope="module")
def lennard_jones_fit(truth: Truth) -> Refinement:
    return refine(truth, liquids.lennard_jones(0.355, 0.7), rounds=5)


def test_gauss_newton_recovers_sigma_and_epsilon(lennard_jones_fit: Refinement) -> None:
    fit = lennard_jones_fit
    error = np.sqrt(np.diag(covariance_of(fit)))
    pair: Any = fit.potential
    assert_recovered(pair.sigma, SIGMA, error[0], "sigma")
    assert_recovered(pair.epsilon, EPSILON, error[1], "epsilon")
    assert error[0] < 0.01 * SIGMA and error[1] < 0.06 * EPSILON  # and they say something
    assert fit.history[0].misfit > 2.5
    assert fit.summary()["misfit"] < 1.2
    assert fit.summary()["rdf_rms"] < 0.2 * fit.history[0].rdf_rms


def test_the_history_tells_what_was_done(lennard_jones_fit: Refinement) -> None:
    history = lennard_jones_fit.history
    # half a round of equilibration at the start, a tenth later; a run that drifts is repeated
    first, later = STEPS + STEPS // 2, STEPS + STEPS // 10
    assert history[0].md_steps in (first, first + STEPS, first + 2 * STEPS)
    for before, after in itertools.pairwise(history):
        assert after.md_steps - before.md_steps in (later, later + STEPS, later + 2 * STEPS)
        assert after.seconds > before.seconds
    for entry in history:
        assert 0 <= entry.largest_change < 4.0 + 1e-5  # kT
        assert entry.event == ""
    assert history[-1].n_effective > 1.5 * history[0].n_effective  # frames are pooled


def test_the_summary_is_that_of_the_present_parameters(lennard_jones_fit: Refinement) -> None:
    fit = lennard_jones_fit
    summary = fit.summary()
    assert set(summary) == {
        "misfit",
        "rdf_rms",
        "n_effective",
        "theory_weight",
        "md_steps",
        "seconds",
    }
    assert summary["md_steps"] == fit.history[-1].md_steps
    assert summary["seconds"] == fit.history[-1].seconds
    (view,) = fit.comparisons()
    samples = fit.states[0].frames
    target = fit.targets[0]
    g = samples.average(target.observable).detach().numpy()
    residual = target.response(g) - target.values
    np.testing.assert_allclose(view.residual, residual, rtol=1e-9)
    assert summary["rdf_rms"] == pytest.approx(np.sqrt(np.mean(residual**2)))
    assert summary["n_effective"] == pytest.approx(samples.n_effective())
    assert summary["misfit"] == pytest.approx(view.misfit())


def test_the_simulation_goes_on_with_the_refined_force(lennard_jones_fit: Refinement) -> None:
    fit = lennard_jones_fit
    point = fit.states[0].state_point
    state = point.simulation.context.getState(getEnergy=True, getPositions=True)
    x = state.getPositions(asNumpy=True)._value
    difference = x[:, None] - x[None]
    length = liquids.box_length(N, DENSITY)
    difference -= length * np.round(difference / length)
    r = np.sqrt((difference**2).sum(axis=2))[np.triu_indices(N, 1)]
    expected = float(fit.potential.energy(r[r < CUTOFF]).detach().sum())
    assert state.getPotentialEnergy()._value == pytest.approx(expected, rel=1e-4)


def test_parameters_that_are_not_to_be_learned_stay(truth: Truth) -> None:
    mie = Mie(0.33, 0.7, CUTOFF, 10.0, 6.0, 0.8 * SIGMA, 40)
    mie.attractive.requires_grad_(False)
    fit = refine(truth, mie)
    assert float(mie.attractive.detach()) == 6.0
    covariance = covariance_of(fit)
    assert covariance.shape == (3, 3)
    error = np.sqrt(np.diag(covariance))
    # epsilon and the exponent make up for each other, which is not linear over several errors
    assert_recovered(mie.sigma, SIGMA, error[0], "sigma", most=6)
    assert_recovered(mie.epsilon, EPSILON, error[1], "epsilon", most=6)
    assert_recovered(mie.repulsive, 12.0, error[2], "repulsive", most=6)
    assert fit.summary()["rdf_rms"] < 0.25 * fit.history[0].rdf_rms


# A free form ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spline_fit(truth: Truth) -> Refinement:
    return refine(truth, spline(truth), rounds=6)


def test_a_spline_comes_to_the_g_of_the_target(spline_fit: Refinement) -> None:
    assert spline_fit.history[0].rdf_rms > 0.05
    assert spline_fit.summary()["rdf_rms"] < 0.025
    assert spline_fit.summary()["misfit"] < 1.0


def test_error_bars_of_the_table_hold_the_truth(truth: Truth, spline_fit: Refinement) -> None:
    r = np.linspace(0.98 * SIGMA, 0.97 * CUTOFF, 60)
    u, error = spline_fit.potential_table(r)
    assert u.shape == error.shape == (1, 60)
    z = (u[0] - liquids.lennard_jones().energy(r).detach().numpy()[0]) / error[0]
    # neighbouring points err together: 80 % within two errors instead of 95 %
    assert np.mean(np.abs(z) < 2) > 0.8, z
    assert np.abs(z).max() < 6
    assert np.median(error) < 0.4 * EPSILON  # a soft mode: few particles, and no pressure


def test_a_table_leaves_the_fit_as_it_was(spline_fit: Refinement) -> None:
    before = [p.detach().clone() for p in spline_fit.potential.parameters()]
    u, error = spline_fit.potential_table([0.35, 0.4])
    for p, old in zip(spline_fit.potential.parameters(), before, strict=True):
        assert torch.equal(p.detach(), old)
    expected = spline_fit.potential.energy([0.35, 0.4]).detach().numpy()
    np.testing.assert_allclose(u, expected, rtol=1e-12)
    _, error_again = spline_fit.potential_table([0.35, 0.4])
    np.testing.assert_array_equal(error, error_again)


def test_errors_are_large_where_no_pair_ever_was(spline_fit: Refinement) -> None:
    _, error = spline_fit.potential_table(np.array([0.8, 0.85, 1.1]) * SIGMA)
    assert error[0, 0] > error[0, 1] > 5 * error[0, 2]


def test_the_unsampled_core_keeps_the_shape_of_the_prior(spline_fit: Refinement) -> None:
    """c - c_0 has no curvature where there are no data: that is all the prior says."""
    state, basis = spline_fit.states[0], spline_fit.potential.basis
    values = spline_fit.potential.values.detach().numpy()[0]  # type: ignore[union-attr]
    change = values - state.prior_mean
    core = int((basis.centers < 0.88 * SIGMA).sum()) + 1
    assert core >= 3
    curvature = np.diff(change[:core], 2)
    assert np.abs(curvature).max() < 0.5 * np.abs(np.diff(values[:core], 2)).max()


def test_first_contact_is_where_g_rises(truth: Truth, spline_fit: Refinement) -> None:
    rise = truth.rdf.r[np.argmax(truth.g.value > 0.1)]
    assert spline_fit.first_contact() == pytest.approx(rise)


def test_a_refined_spline_reproduces_the_target_in_a_fresh_run(
    truth: Truth, spline_fit: Refinement
) -> None:
    pair = SplinePair(0.8 * SIGMA, CUTOFF, 40).set_coefficients(
        spline_fit.potential.spline_coefficients().detach()
    )
    fresh = point_of(pair, seed=77).sample(20_000, EVERY, [truth.rdf], equilibration=1000)
    g = fresh.estimate(truth.rdf)
    error = np.hypot(g.standard_error, truth.g.standard_error)
    seen = truth.g.value > 0.1
    z = (g.value - truth.g.value)[seen] / error[seen]
    # neighbouring bins err together, and errors from 50 blocks are 10 % uncertain: rms below 2
    assert np.sqrt(np.mean(z**2)) < 2


# Every method -----------------------------------------------------------------------------------

METHODS: dict[str, tuple[Any, float]] = {
    "ibi": ("ibi", 0.5),
    "relative-entropy": ("relative-entropy", 0.6),
    "adam": ("adam", 0.5),
    "SGD": (TorchOptimizer(lambda p: torch.optim.SGD(p, lr=0.01)), 0.5),
    "LBFGS": (TorchOptimizer(lambda p: torch.optim.LBFGS(p, lr=0.3, max_iter=1), steps=6), 0.65),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_reduces_the_misfit(truth: Truth, name: str) -> None:
    """To a half or so of what Boltzmann inversion starts with, within five rounds.

    The best round counts: methods that follow the noise of every frame do not stay there. And all
    bins count alike: where the foot of the first peak has almost no error, nothing else counts.
    """
    method, share = METHODS[name]
    fit = refine(truth, spline(truth), method, rounds=5, uncertainty=0.02)
    start = fit.history[0].rdf_rms
    assert start > 0.05
    assert best_rms(fit) < share * start
    assert fit.last_step is not None and fit.last_step.covariance is None


@pytest.mark.parametrize("name", ["gauss-newton", "adam"])
def test_a_network_is_learned_from_the_inverted_target(truth: Truth, name: str) -> None:
    slow_adam = TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.003))
    network = NeuralPair(
        0.8 * SIGMA, CUTOFF, 0.9 * SIGMA, knots=40, centers=12, hidden=(8,), seed=1
    )
    match_potential(network, spline(truth), 0.95 * SIGMA, KELVIN)
    method = slow_adam if name == "adam" else name
    fit = refine(truth, network, method, rounds=5, uncertainty=0.02)
    assert fit.history[0].rdf_rms > 0.05
    assert best_rms(fit) < 0.6 * fit.history[0].rdf_rms


def test_a_method_of_ones_own_is_called_once_a_round_and_bounded(truth: Truth) -> None:
    class Deeper:
        calls = 0

        def propose(self, view: FitView) -> Step:
            self.calls += 1
            assert len(view.states) == 1 and len(view.states[0].frames) > 0
            return Step(np.array([0.0, 1.0]))  # of sigma and epsilon

    method = Deeper()
    pair = liquids.lennard_jones()
    fit = Refinement(pair, [rdf_target(truth, point_of(pair))], method, largest_step=0.1)
    fit.run(2, 1000, 20, progress=False)
    assert method.calls == 2
    assert [entry.largest_change for entry in fit.history] == pytest.approx([0.1, 0.1])
    # u is linear in epsilon: 0.1 kT at the worst r of those with g > 0.1
    r = np.linspace(fit.first_contact(), CUTOFF, 200)
    change = (pair.energy(r) - liquids.lennard_jones().energy(r)).detach().numpy()
    worst = np.abs(change).max() / (TEMPERATURE * EPSILON)
    # without 50 effective frames, the end goes back towards what was sampled: one step or less
    assert 0.1 - 1e-9 < worst < 0.2 + 1e-9


# More than one target ---------------------------------------------------------------------------


def test_a_pressure_beside_g_is_met_too(truth: Truth) -> None:
    pair = spline(truth)
    point = point_of(pair)
    observable = Pressure()
    exact, exact_error = truth.pressure.value[0], truth.pressure.standard_error[0]
    p = Target(point, observable, exact, uncertainty=exact_error)
    fit = Refinement(pair, [rdf_target(truth, point), p])
    fit.run(5, STEPS, EVERY, progress=False)
    samples = fit.states[0].frames
    first = samples.runs[0]
    virial = samples.virial_features[: first.n_frames] @ first.coefficients
    volume = liquids.box_length(N, DENSITY) ** 3
    start = BAR * (N * TEMPERATURE * EPSILON + virial.mean() / 3) / volume
    found = samples.estimate(observable)
    error = np.hypot(found.standard_error[0], exact_error)
    assert abs(start - exact) > 10 * error  # Boltzmann inversion gets it wrong
    assert abs(found.value[0] - exact) < 4 * error
    assert fit.summary()["rdf_rms"] < 0.02
    assert fit.summary()["misfit"] < 1.2


def test_two_temperatures_tell_energy_from_entropy() -> None:
    def potential(energy: float, entropy: float) -> TemperatureDependent:
        terms = [liquids.lennard_jones(epsilon=x) for x in (energy, entropy)]
        for term in terms:
            term.sigma.requires_grad_(False)
        return TemperatureDependent(*terms)

    temperatures = [1.6, 3.0]
    true, pair = potential(1.4, 0.002), potential(1.0, 0.0005)
    targets = []
    for seed, t in enumerate(temperatures):
        rdf = RDF(REACH, 48)
        reference = point_of(true, seed, temperature=t)
        g = reference.sample(15_000, EVERY, [rdf], equilibration=1000).estimate(rdf)
        point = point_of(pair, seed + 20, temperature=t)
        targets.append(Target(point, rdf, rdf.r, g.value, uncertainty=g.standard_error))
    fit = Refinement(pair, targets).run(4, STEPS, EVERY, progress=False)
    assert len(fit.states) == 2 and len(fit.comparisons()) == 2
    error = np.sqrt(np.diag(covariance_of(fit)))
    learned = [p for p in pair.parameters() if p.requires_grad]
    assert_recovered(learned[0], 1.4, error[0], "energy", most=5)
    assert_recovered(learned[1], 0.002, error[1], "entropy", most=5)
    assert error[0] < 0.1 and error[1] < 0.0003
    assert best_rms(fit) < 0.75 * fit.history[0].rdf_rms
    assert fit.summary()["misfit"] < 1.3
    r = np.linspace(1.05, 1.8, 20) * SIGMA
    middle = liquids.kelvin(2.2)
    u, band = fit.potential_table(r, temperature=middle)
    exact = true.energy(r, middle).detach().numpy()
    assert (np.abs(u - exact) < 5 * band).all()
    low, high = (fit.potential_table(r, temperature=liquids.kelvin(t))[0] for t in temperatures)
    assert np.abs(low - high).max() > 0.1  # they do differ


SIGMAS = SIGMA * np.array([1.0, 1.05, 0.95])
EPSILONS = EPSILON * np.array([1.0, 0.7, 1.2])
TYPES = [0] * 30 + [1] * 34
HOT = {"types": TYPES, "temperature": 2.0}


def mixture_rdfs() -> list[RDF]:
    first, second = np.arange(30), np.arange(30, 64)
    pairs = [(first, first), (first, second), (second, second)]
    return [RDF(REACH, 40, atoms=a, atoms2=b) for a, b in pairs]


@pytest.fixture(scope="module")
def mixture() -> list[tuple[RDF, Estimate]]:
    """The three partial g(r) of a binary Lennard-Jones fluid."""
    pair = liquids.lennard_jones(SIGMAS, EPSILONS, n_types=2)
    rdfs = mixture_rdfs()
    samples = point_of(pair, 6, **HOT).sample(30_000, EVERY, rdfs, equilibration=1000)
    return [(rdf, samples.estimate(rdf)) for rdf in rdfs]


def mixture_fit(
    mixture: list[tuple[RDF, Estimate]], pair: PairPotential, method: str, rounds: int
) -> Refinement:
    point = point_of(pair, 16, **HOT)
    targets = [
        Target(point, rdf, rdf.r, g.value, uncertainty=g.standard_error) for rdf, g in mixture
    ]
    fit = Refinement(pair, targets, method)
    return fit.run(rounds, STEPS, EVERY, progress=False)


def test_a_mixture_gives_three_potentials(mixture: list[tuple[RDF, Estimate]]) -> None:
    pair = liquids.lennard_jones(SIGMA, [0.8, 0.8, 0.8], n_types=2)
    fit = mixture_fit(mixture, pair, "gauss-newton", 5)
    covariance = covariance_of(fit)
    assert covariance.shape == (6, 6)
    error = np.sqrt(np.diag(covariance))
    assert_recovered(pair.sigma, SIGMAS, error[:3], "sigma", most=6)
    assert_recovered(pair.epsilon, EPSILONS, error[3:], "epsilon", most=6)
    found = np.concatenate([p.detach().numpy() for p in (pair.sigma, pair.epsilon)])
    z = (found - np.concatenate([SIGMAS, EPSILONS])) / error
    assert np.median(np.abs(z)) < 2.5
    assert (error < 0.1 * np.concatenate([0.1 * SIGMAS, EPSILONS])).all()
    assert fit.summary()["rdf_rms"] < 0.5 * fit.history[0].rdf_rms
    assert fit.summary()["misfit"] < 1.4
    u, band = fit.potential_table([0.35, 0.4, 0.5])
    assert u.shape == band.shape == (3, 3) and (band > 0).all()


@pytest.mark.parametrize("method, share", [("gauss-newton", 0.6), ("ibi", 0.9)])
def test_a_mixture_of_splines_comes_to_its_three_targets(
    mixture: list[tuple[RDF, Estimate]], method: str, share: float
) -> None:
    pair = SplinePair(0.76 * SIGMA, CUTOFF, 30, n_types=2)
    for index, (rdf, g) in enumerate(mixture):
        boltzmann_inversion(pair, rdf.r, g.value, liquids.kelvin(2.0), index)
    fit = mixture_fit(mixture, pair, method, 4)
    assert fit.history[0].rdf_rms > 0.06
    assert best_rms(fit) < share * fit.history[0].rdf_rms


# Systems that hold more than the learned force --------------------------------------------------


def dimers(pair: PairPotential, seed: int) -> app.Simulation:
    """48 rigid dimers: a learned site, and a light one with the opposite charge."""
    n, length = 48, liquids.box_length(48, 0.35)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(length * np.eye(3)))
    charges = openmm.NonbondedForce()
    charges.setNonbondedMethod(charges.CutoffPeriodic)
    charges.setCutoffDistance(CUTOFF)
    charges.setUseDispersionCorrection(False)
    angles = openmm.CustomExternalForce("0.01 * z")  # a field, just to be there
    topology = app.Topology()
    chain = topology.addChain()
    for i in range(n):
        residue = topology.addResidue("DIM", chain)
        for mass, charge in ((40.0, -0.15), (10.0, 0.15)):
            system.addParticle(mass)
            charges.addParticle(charge, 0.2, 0.05)
            topology.addAtom("X", None, residue)
        system.addConstraint(2 * i, 2 * i + 1, 0.12)
        charges.addException(2 * i, 2 * i + 1, 0, 0.1, 0)
        angles.addParticle(2 * i, [])
    system.addForce(charges)
    system.addForce(angles)
    pair.attach(system, atoms=range(0, 2 * n, 2))
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 1 / liquids.TAU, 0.015)
    integrator.setRandomNumberSeed(seed)
    sim = app.Simulation(
        topology, system, integrator, openmm.Platform.getPlatform("CPU"), {"Threads": "1"}
    )
    positions = np.repeat(liquids.lattice(n, length, seed), 2, axis=0)
    positions[1::2, 0] += 0.12
    sim.context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(sim.context, 10.0, 200)
    sim.context.setVelocitiesToTemperature(KELVIN, seed)
    return sim


def test_the_learned_force_may_be_one_of_many_in_a_system_with_constraints() -> None:
    sites = range(0, 96, 2)
    rdf, pressure = RDF(2.0 * SIGMA, 36, atoms=sites), Pressure()
    true = liquids.lennard_jones()
    record = [rdf, pressure]
    measured = StatePoint(dimers(true, 3), true).sample(15_000, EVERY, record, equilibration=1500)
    g, p = measured.estimate(rdf), measured.estimate(pressure)
    pair = liquids.lennard_jones(0.35, 0.7)
    point = StatePoint(dimers(pair, 4), pair)
    targets = [
        Target(point, rdf, rdf.r, g.value, uncertainty=g.standard_error),
        Target(point, pressure, p.value[0], uncertainty=p.standard_error[0]),
    ]
    fit = Refinement(pair, targets).run(4, STEPS, EVERY, progress=False)
    error = np.sqrt(np.diag(covariance_of(fit)))
    assert_recovered(pair.sigma, SIGMA, error[0], "sigma")
    assert_recovered(pair.epsilon, EPSILON, error[1], "epsilon")
    assert fit.summary()["misfit"] < 1.2
    assert fit.summary()["rdf_rms"] < 0.6 * fit.history[0].rdf_rms
    assert fit.states[0].frames.rest_energy.std() > 1  # the charges do something


def at_constant_pressure(pair: PairPotential, seed: int) -> StatePoint:
    """A liquid dense enough that 64 particles fill a box of nearly constant size."""

    def add_barostat(system: openmm.System) -> None:
        barostat = openmm.MonteCarloBarostat(1300.0, KELVIN, 20)
        barostat.setRandomNumberSeed(seed)
        system.addForce(barostat)

    return point_of(pair, seed, density=0.72, prepare=add_barostat)


def test_sigma_and_epsilon_are_recovered_at_constant_pressure() -> None:
    """Where the box answers a change of the potential too."""
    rdf = RDF(2.0 * SIGMA, 40)
    reference = at_constant_pressure(liquids.lennard_jones(), 1)
    g = reference.sample(15_000, EVERY, [rdf], equilibration=2000).estimate(rdf)
    pair = liquids.lennard_jones(0.35, 0.7)
    point = at_constant_pressure(pair, 2)
    assert point.pressure == pytest.approx(1300.0)
    target = Target(point, rdf, rdf.r, g.value, uncertainty=g.standard_error)
    fit = Refinement(pair, [target]).run(4, STEPS, EVERY, progress=False)
    error = np.sqrt(np.diag(covariance_of(fit)))
    assert_recovered(pair.sigma, SIGMA, error[0], "sigma")
    assert_recovered(pair.epsilon, EPSILON, error[1], "epsilon")
    assert fit.summary()["rdf_rms"] < 0.5 * fit.history[0].rdf_rms
    assert np.ptp(fit.states[0].frames.volume) > 0


# When to stop -----------------------------------------------------------------------------------


def test_a_fit_that_starts_at_the_truth_stops_at_once(truth: Truth) -> None:
    pair = liquids.lennard_jones()
    target = rdf_target(truth, point_of(pair), uncertainty=0.05)
    fit = Refinement(pair, [target])
    fit.run(8, STEPS, EVERY, progress=False)
    assert fit.converged
    assert len(fit.history) < 4
    assert fit.history[-1].misfit <= 1
    assert fit.comparisons()[0].noise_ratio() < 1
    steps = fit.md_steps
    fit.run(20, STEPS, EVERY, progress=False)  # nothing is left to do
    assert fit.md_steps == steps


def test_a_fit_does_not_stop_while_its_own_noise_hides_the_misfit(truth: Truth) -> None:
    pair = liquids.lennard_jones()
    target = rdf_target(truth, point_of(pair), uncertainty=1e-4)
    fit = Refinement(pair, [target]).run(2, 1000, 20, progress=False)
    assert not fit.converged
    assert len(fit.history) == 2


def test_rounds_are_counted_in_all(truth: Truth) -> None:
    pair = liquids.lennard_jones(0.35, 0.8)
    fit = Refinement(pair, [rdf_target(truth, point_of(pair))])
    assert fit.run(1, 1000, 20, progress=False) is fit
    steps = fit.md_steps
    fit.run(1, 1000, 20, progress=False)
    assert len(fit.history) == 1 and fit.md_steps == steps
    fit.run(2, 1000, 20, progress=False)
    assert len(fit.history) == 2 and fit.md_steps >= steps + 1100


def test_a_round_may_hold_few_frames(truth: Truth) -> None:
    fit = refine(truth, liquids.lennard_jones(0.35, 0.8), rounds=3, steps=240)
    assert len(fit.history) == 3
    assert len(fit.states[0].frames) <= 36


def test_the_bar_shows_round_misfit_and_frames(
    truth: Truth, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = liquids.lennard_jones()
    fit = Refinement(pair, [rdf_target(truth, point_of(pair))])
    fit.run(1, 500, 20, progress=True)
    shown = capsys.readouterr().err
    assert "round 1, misfit" in shown and "n_effective" in shown
    fit.run(2, 500, 20, progress=False)
    assert capsys.readouterr().err == ""


# What is refused --------------------------------------------------------------------------------


def test_boltzmann_inversion_needs_a_spline(truth: Truth) -> None:
    pair = liquids.lennard_jones()
    with pytest.raises(TargetError, match="SplinePair"):
        Refinement(pair, [rdf_target(truth, point_of(pair))], "ibi")


@pytest.mark.parametrize("method", ["ibi", "relative-entropy"])
def test_these_methods_need_an_rdf_of_every_pair_of_types(method: str) -> None:
    pair = SplinePair(0.8 * SIGMA, CUTOFF, 30, n_types=2)
    for index in range(3):
        pair.set_table(*table(), index)
    point = point_of(pair, types=TYPES)
    first, everything = mixture_rdfs()[0], RDF(REACH, 40)
    for observable, message in ((first, r"every pair of types: \{1, 2\}"), (everything, "single")):
        target = Target(point, observable, first.r, np.ones(40), uncertainty=0.1)
        with pytest.raises(TargetError, match=message):
            Refinement(pair, [target], method)


def table() -> tuple[Array, Array]:
    r = np.linspace(0.8 * SIGMA, CUTOFF, 60)
    return r, liquids.lennard_jones().energy(r).detach().numpy()[0]


def test_relative_entropy_needs_g_up_to_the_cutoff(truth: Truth) -> None:
    pair = spline(truth)
    target = rdf_target(truth, point_of(pair), window=(0.0, 0.9 * CUTOFF))
    with pytest.raises(TargetError, match=f"up to the cutoff, {CUTOFF:.4f} nm"):
        Refinement(pair, [target], "relative-entropy")


def test_a_summary_of_parameters_that_were_never_near_is_refused(truth: Truth) -> None:
    fit = refine(truth, LennardJones(SIGMA, EPSILON, CUTOFF, 0.8 * SIGMA, 40), rounds=1)
    with torch.no_grad():
        fit.potential.epsilon += 10.0  # type: ignore[union-attr, operator]
    with pytest.raises(OverlapError):
        fit.summary()
