"""Several potentials in one System, learned together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from shutil import copytree
from typing import Any

import liquids
import numpy as np
import openmm
import pytest
import torch
from liquids import CUTOFF, EPSILON, SIGMA, Array
from networks import Embedded, embedded, fluid
from systems import (
    argon,
    assert_parameter_gradient,
    context_of,
    empty_system,
    energy_and_forces,
    langevin,
    lattice,
    simulate,
)

import openmm_diffsim as diffsim
from openmm_diffsim import (
    RDF,
    GaussNewton,
    GaussNewtonOptions,
    Potential,
    Pressure,
    Refinement,
    SplinePair,
    StatePoint,
    Sum,
    Target,
)
from openmm_diffsim.potentials import flat_parameters
from openmm_diffsim.refinement.species import Species
from openmm_diffsim.refinement.theory import LiquidTheory

N, DENSITY, TEMPERATURE = 64, 0.7, 1.8  # reduced; of two fluids that do not feel each other
A, B = np.arange(30), np.arange(30, N)
REACH = 2.1 * SIGMA


def simulation_of(both: Sum, seed: int, **options: Any) -> Any:
    """The first term acts among the A, the second among the B."""

    def attach(system: Any) -> None:
        for term, atoms in zip(both, (A, B), strict=True):
            term.attach(system, atoms=atoms)

    nothing = liquids.lennard_jones(epsilon=0.0, name="nothing")
    settings = {"density": DENSITY, "temperature": TEMPERATURE, "prepare": attach, **options}
    return liquids.simulation(nothing, N, seed=seed, **settings)


def lennard_jones_of(sigma: tuple[float, float], epsilon: tuple[float, float]) -> Sum:
    first, second = (
        liquids.lennard_jones(s * SIGMA, e * EPSILON, name=name)
        for s, e, name in zip(sigma, epsilon, ("A", "B"), strict=True)
    )
    return first + second


# A fit --------------------------------------------------------------------------------------------


def test_each_of_two_potentials_is_found_from_the_g_of_its_particles() -> None:
    sigma, epsilon = (1.0, 1.05), (1.0, 0.7)
    true, both = lennard_jones_of(sigma, epsilon), lennard_jones_of((1.04, 1.02), (0.7, 1.0))
    rdfs = [RDF(REACH, 40, atoms=atoms) for atoms in (A, B)]
    measured = StatePoint(simulation_of(true, 1), true)
    samples = measured.sample(20_000, 50, rdfs, equilibration=1000)
    point = StatePoint(simulation_of(both, 2), both)
    targets = []
    for rdf in rdfs:
        g = samples.estimate(rdf)
        targets.append(Target(point, rdf, rdf.r, g.value, uncertainty=g.standard_error))
    fit = Refinement(both, targets).run(4, 3000, 50, progress=False)
    theory, species = fit.states[0].theory, fit.states[0].species
    assert theory is not None and len(theory.rdfs) == 3  # A and B are two species
    assert species is not None
    assert [species.pair_of(rdf) for rdf in rdfs] == [(0, 0), (1, 0)]
    assert fit.last_step is not None and fit.last_step.covariance is not None
    error = np.sqrt(np.diag(fit.last_step.covariance))
    truth = np.array([SIGMA, EPSILON, 1.05 * SIGMA, 0.7 * EPSILON])
    z = (flat_parameters(both).numpy() - truth) / error
    assert np.abs(z).max() < 5, z
    assert (error < 0.15 * truth).all()
    assert fit.summary()["rdf_rms"] < 0.6 * fit.history[0].rdf_rms
    assert fit.summary()["misfit"] < 1.4
    for term, exact in enumerate(true):
        r = np.linspace(1.1, 1.8, 10) * SIGMA
        u, band = fit.potential_table(r, term=term)
        assert u.shape == band.shape == (1, 10)
        assert (np.abs(u - exact.energy(r).detach().numpy()) < 6 * band + 0.01).all()


def test_splines_of_a_sum_begin_at_the_mean_force_of_their_own_particles() -> None:
    both = SplinePair(0.8 * SIGMA, CUTOFF, 30, name="A") + SplinePair(
        0.8 * SIGMA, CUTOFF, 20, name="B"
    )
    point = StatePoint(simulation_of(both, 1, platform="Reference"), both)
    r = np.linspace(0.8, 2.0, 40) * SIGMA
    g = np.exp(-liquids.lennard_jones().energy(r).detach().numpy()[0] / (TEMPERATURE * EPSILON))
    targets = [
        Target(point, RDF(REACH, 40, atoms=B), r, g, uncertainty=0.01),
        Target(point, RDF(REACH, 40), r, g, uncertainty=0.01),  # of all: says nothing of either
    ]
    mean = Refinement(both, targets).states[0].prior_mean
    assert mean is not None
    alone = SplinePair(0.8 * SIGMA, CUTOFF, 20)
    target = targets[0].curve
    assert target is not None
    diffsim.boltzmann_inversion(alone, target.x, target.y, point.temperature)
    of_a, of_b = both.slices()
    np.testing.assert_array_equal(mean[of_b], alone.coefficients().detach().numpy())
    np.testing.assert_array_equal(mean[of_a], both.coefficients().detach().numpy()[of_a])


# Theory -------------------------------------------------------------------------------------------


def spline(name: str, n_types: int = 1) -> SplinePair:
    return SplinePair(0.8 * SIGMA, CUTOFF, 20, n_types=n_types, name=name)


def test_theory_of_two_potentials_is_that_of_the_one_that_they_are_together() -> None:
    """One of two types, whose A-B is zero."""
    table = np.linspace(0.8 * SIGMA, CUTOFF, 40)
    u = [
        liquids.lennard_jones(epsilon=e * EPSILON).energy(table).detach().numpy()[0]
        for e in (1, 0.6)
    ]
    both, one = spline("A") + spline("B"), spline("AB", 2)
    for k, term in enumerate(both):
        term.set_table(table, u[k])  # type: ignore[attr-defined]
        one.set_table(table, u[k], 2 * k)
    with torch.no_grad():
        one.core_radius[1] = 0.0  # so that nothing makes a core of A-B
    types = [0] * len(A) + [1] * len(B)
    mixed = liquids.simulation(one, N, DENSITY, TEMPERATURE, types=types, platform="Reference")
    point_of_one = StatePoint(mixed, one)
    point_of_both = StatePoint(simulation_of(both, 1, platform="Reference"), both)
    theories = [
        LiquidTheory(point, Species(point), [RDF(REACH, 50).r])
        for point in (point_of_one, point_of_both)
    ]
    samples = point_of_one.sample(400, 10, theories[0].rdfs, equilibration=100)
    structure = theories[0].structure(samples.at())
    # Of several potentials, those particles come first that the first one leaves alone.
    np.testing.assert_array_equal(theories[1].species_of, 1 - theories[0].species_of)
    assert structure.fine is not None
    turned = {"g": structure.g[::-1], "n_of_type": structure.n_of_type[::-1]}
    turned |= {"fine": (structure.fine[0], structure.fine[1][::-1])}
    structures = [structure, replace(structure, interactions=theories[1].interactions, **turned)]
    observables = [
        RDF(REACH, 30, atoms=A),
        RDF(REACH, 30, atoms=A, atoms2=B),
        RDF(REACH, 30),
        Pressure(),
    ]
    coefficients = [p.coefficients().detach().numpy() for p in (one, both)]
    assert not coefficients[0][18:36].any() and theories[1].columns.all()
    parts = list(zip(theories, structures, coefficients, strict=True))
    (by_one, known), (by_both, known_too) = (t.jacobian(s, observables, c) for t, s, c in parts)
    assert known.all() and known_too.all()
    columns = np.r_[0:18, 36:54]  # A-A and B-B
    scale = np.abs(by_one).max(axis=1, keepdims=True) + 1e-12
    np.testing.assert_allclose(by_both / scale, by_one[:, columns] / scale, atol=1e-10)
    assert np.abs(by_one[30:60]).max() > 0.01  # A-B answers too
    covariances = [t.covariance(s, observables)[0] for t, s, _ in parts]
    np.testing.assert_allclose(*covariances, rtol=1e-10, atol=1e-14)


def test_two_potentials_between_the_same_particles_answer_alike() -> None:
    """Theory counts both, and knows the g(r) to be of neither alone."""
    both = spline("first") + spline("second")
    r = np.linspace(0.8 * SIGMA, CUTOFF, 40)
    for term in both:
        term.set_table(r, 0.5 * liquids.lennard_jones().energy(r).detach().numpy()[0])  # type: ignore[attr-defined]
    point = StatePoint(liquids.simulation(both, N, 0.3, 1.5, platform="Reference"), both)
    theory = LiquidTheory(point, Species(point), [RDF(REACH, 50).r])
    (rdf,) = theory.rdfs
    assert Species(point).pair_of(rdf) is None and Species(point).shares(rdf) is not None
    structure = theory.structure(point.sample(200, 10, [rdf], equilibration=100).at())
    c = both.coefficients().detach().numpy()
    jacobian, _ = theory.jacobian(structure, [rdf, Pressure()], c)
    np.testing.assert_allclose(jacobian[:, :18], jacobian[:, 18:], rtol=1e-12)
    alone = replace(structure, interactions=structure.interactions[:1])
    np.testing.assert_allclose(jacobian[:-1, :18], alone.rdf_response()[0], rtol=1e-12)


# A network beside a pair potential ----------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> tuple[RDF, Array]:
    """g(r) of another network beside another pair potential."""
    rdf = RDF(0.6, 14)
    other = embedded(1.2, seed=2) + argon(name="pair")
    return rdf, fluid(other).sample(1200, 20, [rdf], equilibration=300).average(
        rdf
    ).detach().numpy()


def beside(measured: tuple[RDF, Array], **options: Any) -> tuple[Refinement, Potential]:
    rdf, g = measured
    both = embedded(0.3) + diffsim.LennardJones(0.34, 0.8, 0.6, knots=30, name="pair")
    point = fluid(both, backend=None)
    target = Target(point, rdf, rdf.r, g, uncertainty=0.03)
    return Refinement(both, [target], **options), both


def test_a_network_and_a_pair_potential_are_learned_together(measured: tuple[RDF, Array]) -> None:
    fit, both = beside(measured)
    start = flat_parameters(both)
    fit.run(1, 1500, 20, progress=False)
    view = fit.view().at(start)
    step = GaussNewton().propose(view)
    assert step.covariance is None
    network, pair = step.change[:-2], step.change[-2:]
    assert np.abs(network).max() > 0 and np.abs(pair).min() > 0

    (here,) = view.compare(GaussNewtonOptions())

    def misfit(at: diffsim.FitView) -> float:
        """What the step makes smaller: weighted by the full covariance, noise of frames in it."""
        residual = at.compare(jacobian=False)[0].residual
        return float(residual @ (here.weighting @ residual))

    small = 0.01 * step.change / np.linalg.norm(step.change)
    before, after, back = (misfit(view.moved(x)) for x in (0 * small, small, -small))
    assert after < before < back
    fit.run(4, 1500, 20, progress=False)
    assert fit.summary()["rdf_rms"] < 0.7 * fit.history[0].rdf_rms
    moved = (flat_parameters(both) - start).abs()
    assert moved[:-2].max() > 0 and moved[-2:].min() > 0
    assert all(entry.largest_change <= 1.0 + 1e-5 for entry in fit.history)
    u, error = fit.potential_table([0.4])
    np.testing.assert_array_equal(u, fit.pair_potential().energy([0.4]).detach().numpy())
    assert np.isnan(error).all()


# All kinds in one ---------------------------------------------------------------------------------

CHAINS, EDGE = 12, 1.7
SITES = np.arange(3 * CHAINS).reshape(-1, 3)
BONDS = [(int(row[k]), int(row[k + 1])) for row in SITES for k in (0, 1)]


def chains() -> tuple[StatePoint, Sum]:
    """Chains of three sites: what is there of the ends, and a table, bonds, angles, a network."""
    system, force = empty_system(3 * CHAINS, np.eye(3) * EDGE), openmm.NonbondedForce()
    force.setNonbondedMethod(force.PME)
    force.setCutoffDistance(0.6)
    for k in range(3 * CHAINS):
        force.addParticle((0.2, 0.0, -0.2)[k % 3], 0.28, (0.4, 0.0, 0.6)[k % 3])
    for row in SITES.tolist():
        for i, j in ((0, 1), (1, 2), (0, 2)):
            force.addException(row[i], row[j], 0.0, 1.0, 0.0)
    system.addForce(force)
    table = SplinePair(0.2, 0.6, 12, name="table")
    r = np.linspace(0.2, 0.6, 40)
    table.set_table(r, 2.0 * (0.25 / r) ** 9)
    bonds = diffsim.BondSpline(0.15, 0.35, 8, name="bonds")
    bonds.set_table(np.linspace(0.15, 0.35, 20), 500.0 * (np.linspace(0.15, 0.35, 20) - 0.25) ** 2)
    angles = diffsim.AngleSpline(knots=8, name="angles")
    many = diffsim.NetworkPotential(Embedded(0.1), name="many")
    table.attach(system)
    bonds.attach(system, bonds=BONDS)
    angles.attach(system, triples=SITES.tolist())
    many.attach(system)
    ends = diffsim.SystemParameters(system, name="ends")
    ends.lennard_jones({"A": SITES[:, 0], "C": SITES[:, 2]})
    ends.charges({"A": SITES[:, 0], "C": SITES[:, 2]})
    both = Sum([ends, table, bonds, angles, many])
    x = lattice(CHAINS, np.eye(3) * EDGE)[:, None] + 0.24 * np.arange(3)[:, None] * [0.8, 0.6, 0]
    simulation = simulate(system, x.reshape(-1, 3), langevin(TEMPERATURE_OF_CHAINS, 1))
    return StatePoint(simulation, both), both


TEMPERATURE_OF_CHAINS = 400.0


def fit_of_chains(**options: Any) -> tuple[Refinement, Sum]:
    """With targets that its parameters do not reach."""
    point, both = chains()
    bonds: Any = list(both)[2]
    held = {"ends.lennard_jones.epsilon", "many.network.w"}
    both.learn_only([name for name in both.by_name() if name not in held])
    bonds.set_roughness(50.0)
    rdf, bond = RDF(0.6, 12), diffsim.BondDistribution(0.15, 0.35, 10, bonds=BONDS)
    samples = point.sample(300, 10, [rdf, bond])
    g, p = (samples.estimate(o).value for o in (rdf, bond))
    targets = [
        Target(point, rdf, rdf.r, 1.05 * g, uncertainty=0.05),
        Target(point, bond, bond.r, p[::-1].copy(), uncertainty=0.5),
        Target(point, Pressure(), 100.0, uncertainty=500.0),
    ]
    return Refinement(both, targets, **options), both


def test_all_kinds_of_terms_in_one_fit(tmp_path: Any) -> None:
    """Masks, gradients, a checkpoint and what is exported, of five terms in one System."""
    (tmp_path / "first").mkdir()
    fit, both = fit_of_chains(checkpoint=tmp_path / "first" / "fit.npz")
    start = {name: p.detach().clone() for name, p in both.by_name().items()}
    fit.run(1, 300, 10, progress=False)
    samples = fit.states[0].frames

    def weighted(target: Target) -> torch.Tensor:
        average = samples.average(target.observable)
        return torch.linspace(0.5, 1.5, len(average), dtype=torch.float64) @ average

    for target in fit.targets:
        assert_parameter_gradient(both, partial(weighted, target))
    moved = {name for name, p in both.by_name().items() if not torch.equal(p, start[name])}
    assert moved == set(start) - {"ends.lennard_jones.epsilon", "many.network.w"}
    fit.run(2, 300, 10, progress=False)

    copytree(tmp_path / "first", tmp_path / "second")
    fit.run(3, 300, 10, progress=False)
    again, other = fit_of_chains(checkpoint=tmp_path / "second" / "fit.npz")
    again.resume(tmp_path / "second" / "fit.npz")
    assert len(again.history) == 2
    again.run(3, 300, 10, progress=False)
    assert torch.equal(flat_parameters(other), flat_parameters(both))  # as if never interrupted

    simulation = fit.states[0].state_point.simulation
    text = openmm.XmlSerializer.serialize(diffsim.portable_system(simulation.system))
    exported = openmm.XmlSerializer.deserialize(text)
    x = simulation.context.getState(getPositions=True).getPositions(asNumpy=True)._value
    ours, theirs = (
        energy_and_forces(context_of(s, x, "Reference")) for s in (simulation.system, exported)
    )
    assert theirs[0] == pytest.approx(ours[0], rel=1e-9)
    np.testing.assert_allclose(theirs[1], ours[1], rtol=1e-6, atol=1e-6)


def test_each_table_of_a_sum_has_a_smoothness_of_its_own() -> None:
    _, both = fit_of_chains()

    def blocks() -> list[Array]:
        return [block for _, block in both.prior_blocks(400.0, 0.3, 2e5)]

    before, table = blocks(), list(both)[1]
    table.set_roughness(2e4)
    after = blocks()
    np.testing.assert_allclose(after[0], 10 * before[0])
    assert len(after) == 3  # neither numbers of a force nor a network have one
    for one, other in zip(after[1:], before[1:], strict=True):
        np.testing.assert_array_equal(one, other)
