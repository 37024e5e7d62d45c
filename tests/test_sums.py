"""Sums of potentials: as vectors, as Forces, and what follows from their frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from networks import LENGTH, embedded
from systems import (
    Array,
    FreePair,
    argon,
    assert_parameter_gradient,
    context_of,
    empty_system,
    energy_and_forces,
    lattice,
    numerical_derivative,
    simulate,
)

from openmm_diffsim import (
    RDF,
    Pressure,
    Refinement,
    Samples,
    SplinePair,
    StatePoint,
    Target,
    Yukawa,
)
from openmm_diffsim.engine.adapters import attached
from openmm_diffsim.engine.recorder import FrameRecorder
from openmm_diffsim.errors import (
    AttachError,
    FramesError,
    PotentialError,
    StatePointError,
    TargetError,
)
from openmm_diffsim.potentials import (
    Potential,
    SplineBasis,
    Sum,
    flat_parameters,
    set_flat_parameters,
)
from openmm_diffsim.samples import Features, SumOfFeatures

RDF_ = RDF(0.5, 8)
PRESSURE = Pressure()
N = 27
BOX = np.eye(3) * LENGTH


def spline(name: str = "spline", n_types: int = 1) -> SplinePair:
    """Free values, a little off zero."""
    pair = SplinePair(0.28, 0.5, 12, n_types=n_types, name=name)
    rng = np.random.default_rng(4)
    pair.values.data.copy_(torch.from_numpy(0.2 * rng.normal(size=pair.values.shape)))
    return pair


def yukawa(name: str = "yukawa") -> Yukawa:
    return Yukawa(0.3, 4.0, cutoff=0.5, r_min=0.25, knots=10, name=name)


def two_pairs() -> Sum:
    return argon(0.5, 14) + spline()


def network_and_pair() -> Sum:
    return embedded() + spline()


SUMS = {"two pairs": two_pairs, "network and pair": network_and_pair}


# Vectors ----------------------------------------------------------------------------------------


def test_coefficients_are_those_of_the_terms_one_after_the_other() -> None:
    first, second, third = argon(), spline(n_types=2), embedded()
    whole = first + second + third
    assert isinstance(whole, Sum) and list(whole) == [first, second, third]
    parts = [term.coefficients() for term in whole]
    assert torch.equal(whole.coefficients(), torch.cat(parts))
    for part, where in zip(parts, whole.slices(), strict=True):
        assert torch.equal(whole.coefficients()[where], part)
    assert list(whole.blocks.items()) == [
        ("LennardJones.spline", (1, 28)),
        ("spline.spline", (3, 10)),
        ("NetworkPotential.network.w", (5, 5)),
        ("NetworkPotential.network.v", (5,)),
    ]
    assert whole.n_types == 2
    assert whole.name == "LennardJones + spline + NetworkPotential"


def test_sums_among_the_terms_are_taken_apart() -> None:
    a, b, c = argon(), spline(), yukawa()
    assert list((a + b) + c) == list(a + (b + c)) == list(Sum([a, b, c])) == [a, b, c]


def test_a_sum_is_linear_where_all_terms_are() -> None:
    free, analytic, network = spline(), argon(), embedded()
    for terms, linear, energy_is_linear in (
        ([free, spline("other")], True, True),
        ([free, analytic], False, True),
        ([free, network], True, False),
    ):
        whole = Sum(terms)
        assert whole.energy_is_linear == energy_is_linear
        assert whole.is_linear == (linear and all(term.is_linear for term in terms))


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_rows_are_pulled_back_as_finite_differences_say(where: str) -> None:
    whole = argon(knots=10) + yukawa() + spline()
    rng = np.random.default_rng(1)
    here = flat_parameters(whole)
    theta = here if where == "here" else here * torch.from_numpy(rng.uniform(0.9, 1.1, len(here)))
    rows = rng.normal(size=(3, len(whole.coefficients())))

    def pulled(x: Array) -> Array:
        return rows @ whole.coefficients_at(torch.from_numpy(x)).detach().numpy()

    expected = numerical_derivative(pulled, theta.numpy())
    found = whole.pull_back(rows, None if where == "here" else theta)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())
    assert whole.pull_back(rows[:0]).shape == (0, len(theta))
    assert torch.equal(flat_parameters(whole), here)


def test_what_a_fit_asks_is_put_together_of_the_terms() -> None:
    free, analytic, network = spline(n_types=2), argon(), embedded()
    whole = analytic + free + network
    analytics, frees, networks = whole.slices()
    precision = whole.prior_precision(120.0, 0.35, 2.0)
    assert precision is not None
    own = free.prior_precision(120.0, 0.35, 2.0)
    np.testing.assert_array_equal(precision[frees, frees], own)
    precision[frees, frees] = 0
    assert not precision.any()
    assert (analytic + network).prior_precision(120.0, 0.35, 2.0) is None

    change = np.zeros(len(whole.coefficients()))
    change[frees] = 0.3
    change[networks] = 100.0  # which only frames can tell
    assert whole.step_size(change, 120.0, 0.3) == free.step_size(change[frees], 120.0, 0.3)
    change[analytics] = 2.0
    assert whole.step_size(change, 120.0, 0.3) == analytic.step_size(change[analytics], 120.0, 0.3)
    assert Sum([network]).step_size(change[networks], 120.0, 0.3) is None

    assert whole.pairs() == [(analytics, analytic), (frees, free)]
    forms = {term.name: term.form() for term in whole}
    assert whole.form() == {"order": list(forms), "terms": forms}
    assert forms["LennardJones"]["kind"] == "LennardJones"


def test_terms_check_themselves() -> None:
    asked = []

    class Asked(FreePair):
        def check(self, temperature: float) -> None:
            asked.append((self.name, temperature))

    first, second = (Asked(SplineBasis(0.3, 0.6, 8)) for _ in range(2))
    second.name = "second"
    (first + second).check(90.0)
    assert asked == [("Asked", 90.0), ("second", 90.0)]


def test_names_have_to_differ() -> None:
    with pytest.raises(PotentialError, match=r"names of their own.*'spline', 'spline'.*name=") as e:
        spline() + spline()
    assert e.value.got == ["spline", "spline"]
    with pytest.raises(PotentialError, match="got none"):
        Sum([])
    with pytest.raises(PotentialError, match="names of their own"):
        (spline() + argon()) + spline()


# Forces -----------------------------------------------------------------------------------------


def test_forces_of_terms_on_different_particles_add_up(backend: str) -> None:
    """Three terms that share some particles, one by one."""
    first, second, network = argon(), spline(n_types=2), embedded()
    rng = np.random.default_rng(7)
    positions = lattice(N, BOX, 0.03) + LENGTH * rng.integers(-1, 2, (N, 3))
    who: list[dict[str, Any]] = [
        {"atoms": np.arange(0, 20), "backend": backend},
        {"atoms": np.arange(8, N), "types": np.arange(8, N) % 2, "backend": backend},
        {"atoms": np.arange(5, 18), "backend": "python"},
    ]
    system = empty_system(N, BOX)
    alone = []
    for term, options in zip((first, second, network), who, strict=True):
        term.attach(system, **options)
        own = empty_system(N, BOX)
        term.attach(own, **options)
        alone.append(energy_and_forces(context_of(own, positions, "Reference")))
    energy, forces = energy_and_forces(context_of(system, positions, "Reference"))
    assert min(abs(e) for e, _ in alone) > 0.1
    assert energy == pytest.approx(sum(e for e, _ in alone), rel=1e-10)
    np.testing.assert_allclose(forces, sum(f for _, f in alone), atol=1e-8)

    adapter = attached(first + second + network, system)
    assert [part.potential for part in adapter.parts] == [first, second, network]
    assert adapter.names == {"LennardJones", "spline", "NetworkPotential"}
    np.testing.assert_array_equal(adapter.types() >= 0, np.ones(N, dtype=bool))
    np.testing.assert_array_equal(np.flatnonzero(adapter.pair_types()[0] >= 0), np.arange(20))
    np.testing.assert_array_equal(adapter.pair_types()[1][8:], np.arange(8, N) % 2)


def test_a_sum_attaches_all_its_terms_or_none(backend: str) -> None:
    whole = argon() + spline()
    system = empty_system(N, BOX)
    forces = whole.attach(system, exclusions=[(0, 1)], backend=backend)
    assert [force.getName() for force in forces] == ["LennardJones", "spline"]
    assert [pairs.tolist() for pairs in attached(whole, system).exclusions()] == [[[0, 1]]] * 2
    with pytest.raises(AttachError, match="already has a force named 'spline'"):
        (yukawa() + spline()).attach(system)
    assert system.getNumForces() == 2
    with pytest.raises(AttachError, match=r"no force named 'yukawa' or 'another': call"):
        attached(Sum([yukawa(), spline(), yukawa("another")]), system)


def test_new_parameters_of_all_terms_reach_a_live_context(backend: str) -> None:
    whole = argon() + spline()
    system = empty_system(N, BOX)
    whole.attach(system, backend=backend)
    positions = lattice(N, BOX, 0.03)
    context = context_of(system, positions, "Reference")
    before, _ = energy_and_forces(context)
    set_flat_parameters(whole, 1.01 * flat_parameters(whole))
    attached(whole, system).update(context, 120.0)
    fresh = empty_system(N, BOX)
    whole.attach(fresh, backend=backend)
    expected, _ = energy_and_forces(context_of(fresh, positions, "Reference"))
    assert abs(expected - before) > 0.01
    assert energy_and_forces(context)[0] == pytest.approx(expected, rel=1e-12)


# Frames -----------------------------------------------------------------------------------------


def point_of(whole: Potential, pressure: float | None = None, seed: int = 1) -> StatePoint:
    """A warm fluid, all terms on all particles, bonds besides."""
    system = empty_system(N, BOX)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.4, 1000.0)
    system.addForce(bond)
    whole.attach(system)
    if pressure is not None:
        barostat = openmm.MonteCarloBarostat(pressure, 120.0, 5)
        barostat.setRandomNumberSeed(seed)
        system.addForce(barostat)
    return StatePoint(simulate(system, lattice(N, BOX, 0.02, seed)), whole)


def moved(whole: Potential, by: float = 0.002) -> None:
    theta = flat_parameters(whole)
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=len(theta)))
    set_flat_parameters(whole, theta + by * (0.1 + theta) * noise)


def pooled(whole: Potential, pressure: float | None = 300.0, frames: int = 30) -> Samples:
    """Two runs with different parameters, and present ones that differ from both."""
    point, parts = point_of(whole, pressure), []
    for _ in range(2):
        parts.append(point.sample(10 * frames, 10, [RDF_, PRESSURE], equilibration=50))
        moved(whole)
    return Samples.pool(parts)


@pytest.mark.parametrize("kind", SUMS)
def test_a_frame_of_a_sum_is_what_openmm_says(kind: str) -> None:
    """Energy of the recorded frame, and its virial by moving molecules."""
    whole = SUMS[kind]()
    point = point_of(whole)
    context = point.simulation.context
    positions = np.float32(lattice(N, BOX, 0.03)).astype(np.float64)
    context.setPositions(positions)
    total, _ = energy_and_forces(context)
    recorder = FrameRecorder(whole, context, [PRESSURE])
    recorder.add(positions, BOX, total)
    samples = recorder.samples(whole.coefficients().detach().numpy(), 120.0, None, 1)
    bond = point.simulation.context.getState(getEnergy=True, groups={0})
    assert bond.getPotentialEnergy()._value == pytest.approx(total)
    r = np.linalg.norm(positions[0] - positions[1])
    assert samples.rest_energy[0] == pytest.approx(500 * (r - 0.4) ** 2, rel=1e-5)

    centers = positions.copy()
    centers[:2] = positions[:2].mean(axis=0)

    def energy(scale: Array) -> float:
        context.setPeriodicBoxVectors(*(BOX * scale))
        context.setPositions(positions + (scale - 1) * centers)
        return energy_and_forces(context)[0]

    expected = -float(numerical_derivative(energy, np.ones(1), 1e-5)[0])
    virial = samples.learned.virial(whole.coefficients())
    assert virial.item() == pytest.approx(expected, rel=1e-5)


def test_terms_may_differ_in_whether_they_are_periodic() -> None:
    """Frames of each term are taken with a box or without, as its Force does."""
    pair, network = spline(), embedded()
    system = empty_system(N, BOX)
    pair.attach(system, periodic=True)
    network.attach(system, periodic=False, backend="python")
    whole = network + pair
    simulation = simulate(system, lattice(N, BOX, 0.02))
    samples = StatePoint(simulation, whole).sample(30, 10, [RDF_])
    total, _ = energy_and_forces(simulation.context)
    assert samples.run_energies()[-1] == pytest.approx(total, rel=1e-4)
    periodic = StatePoint(simulation, whole)
    assert periodic.box() is not None
    assert samples.average(RDF_).max() > 0.5


def of_parts(learned: SumOfFeatures, quantity: str, c: torch.Tensor) -> torch.Tensor:
    values = [
        getattr(term, quantity)(c[where])
        for term, where in zip(learned.terms, learned.slices, strict=True)
    ]
    return sum(values[1:], values[0])


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("quantity", ["energy", "virial"])
def test_energy_and_virial_are_sums_with_the_gradient_of_both(kind: str, quantity: str) -> None:
    whole = SUMS[kind]()
    samples = pooled(whole, frames=6)
    learned = samples.learned
    assert isinstance(learned, SumOfFeatures) and len(learned) == 12
    c = whole.coefficients().detach()
    values = getattr(learned, quantity)(c)
    torch.testing.assert_close(values, of_parts(learned, quantity, c), rtol=1e-14, atol=0)
    assert np.ptp(values.numpy()) > 0.1

    weights = np.random.default_rng(2).normal(size=(2, len(learned)))

    def weighted(x: Array) -> Array:
        return weights @ getattr(learned, quantity)(torch.from_numpy(x)).numpy()

    expected = numerical_derivative(weighted, c.numpy())
    scale = 1e-9 * np.abs(expected).max()
    found = learned.response(quantity, c, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=scale)
    leaf = c.clone().requires_grad_(True)
    torch.from_numpy(weights[0]).dot(getattr(learned, quantity)(leaf)).backward()
    np.testing.assert_allclose(leaf.grad.numpy(), found[0], rtol=1e-9, atol=scale)


@pytest.mark.parametrize("kind", SUMS)
def test_a_sum_to_first_order_is_one_set_of_features(kind: str) -> None:
    whole = SUMS[kind]()
    learned = pooled(whole, frames=6).learned
    c = whole.coefficients().detach()
    linear = learned.linear(c)
    assert isinstance(linear, Features) and linear.energies.shape == (12, len(c))
    for quantity in ("energy", "virial"):
        same = getattr(learned, quantity)(c)
        torch.testing.assert_close(getattr(linear, quantity)(c), same, rtol=1e-9, atol=1e-9)
    step = 1e-5 * torch.from_numpy(np.random.default_rng(5).normal(size=len(c)))
    for quantity in ("energy", "virial"):
        there = getattr(learned, quantity)(c + step)
        near = getattr(linear, quantity)(c + step)
        change = (there - getattr(learned, quantity)(c)).abs().max()
        assert (there - near).abs().max() < 1e-3 * change + 1e-9
    without = learned.linear(c, virials=False)
    np.testing.assert_array_equal(without.energies, linear.energies)
    has_network = any(not term.energy_is_linear for term in whole)
    assert np.isnan(without.virials).any() == has_network


@pytest.mark.parametrize("kind", SUMS)
def test_frames_of_a_sum_are_chosen_and_pooled(kind: str) -> None:
    whole = SUMS[kind]()
    learned = pooled(whole, frames=6).learned
    c = whole.coefficients().detach()
    energies, virials = learned.energy(c), learned.virial(c)
    keep = np.arange(12) % 3 == 1
    chosen = learned.select(keep)
    assert len(chosen) == 4
    torch.testing.assert_close(chosen.energy(c), energies[torch.from_numpy(keep)])
    pool = chosen.pooled([learned, chosen])
    assert len(pool) == 20
    parts = [energies[keep], energies, energies[keep]]
    torch.testing.assert_close(pool.energy(c), torch.cat(parts))
    torch.testing.assert_close(pool.virial(c)[4:16], virials)
    assert learned.is_temporary == (kind == "network and pair")
    assert learned.files() == []


def test_the_smallest_change_of_a_term_is_felt() -> None:
    """The tests above could fail: coefficients of one term in the place of the other's."""
    whole = two_pairs()
    learned = pooled(whole, frames=6).learned
    assert isinstance(learned, SumOfFeatures)
    swapped = SumOfFeatures(learned.terms[::-1], learned.slices)
    c = whole.coefficients().detach()
    with pytest.raises(RuntimeError, match="size"):
        swapped.energy(c)


# Averages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("observable", [RDF_, PRESSURE], ids=["RDF", "Pressure"])
@pytest.mark.parametrize("kind", SUMS)
def test_gradient_of_an_average_equals_finite_differences(kind: str, observable: Any) -> None:
    whole = SUMS[kind]()
    samples = pooled(whole, frames=12)
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=observable.n_values))
    assert_parameter_gradient(whole, lambda: samples.average(observable) @ direction)


@pytest.mark.parametrize("kind", SUMS)
def test_jacobian_is_that_of_autograd(kind: str) -> None:
    whole = SUMS[kind]()
    samples = pooled(whole)
    view = samples.at()
    for observable in (RDF_, PRESSURE):
        jacobian = whole.pull_back(view.jacobian(observable))
        for value, row in zip(view.average(observable), jacobian, strict=True):
            parts = torch.autograd.grad(value, list(learned(whole)), retain_graph=True)
            expected = torch.cat([part.reshape(-1) for part in parts]).numpy()
            atol = 1e-9 * np.abs(jacobian).max()
            np.testing.assert_allclose(row, expected, rtol=1e-8, atol=atol)


def learned(whole: Potential) -> list[torch.nn.Parameter]:
    return [p for p in whole.parameters() if p.requires_grad]


def test_gradient_with_error_bars_is_that_of_autograd() -> None:
    whole = network_and_pair()
    samples = pooled(whole)

    def loss(s: Samples) -> torch.Tensor:
        return (s.average(RDF_) ** 2).sum() + 1e-7 * s.average(PRESSURE)[0] ** 2

    gradient, error = samples.gradient(loss)
    parts = torch.autograd.grad(loss(samples), learned(whole))
    expected = torch.cat([part.reshape(-1) for part in parts]).numpy()
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())
    assert np.all(error[gradient != 0] > 0) and np.count_nonzero(gradient) > 35


def test_a_sum_of_pairs_has_the_averages_of_one_pair_potential() -> None:
    """u_1 + u_2 as two Forces, and as one spline."""
    first, second = spline(), spline("second")
    as_one = spline("one").set_coefficients(2 * first.spline_coefficients().detach())
    found = []
    for potential in (first + second, as_one):
        samples = point_of(potential).sample(100, 10, [RDF_, PRESSURE])
        found.append([samples.average(o).detach() for o in (RDF_, PRESSURE)])
        found[-1].append(torch.from_numpy(samples.run_energies()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_table_of_a_pair_beside_a_network_has_no_errors(tmp_path: Path) -> None:
    pair, network = spline(), embedded()
    whole = network + pair
    target = Target(point_of(whole), PRESSURE, 100.0, uncertainty=50.0)
    fit = Refinement(whole, [target], checkpoint=tmp_path / "fit.npz")
    fit.run(rounds=1, steps=60, every=10, progress=False)
    u, error = fit.potential_table([0.35, 0.4])
    torch.testing.assert_close(u[0], pair.energy([0.35, 0.4])[0].detach().numpy())
    assert np.isnan(error).all()
    with pytest.raises(TargetError, match=r"term: expected 0 .. 0, got 1"):
        fit.potential_table([0.35], term=1)


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SUMS)
def test_samples_of_a_sum_are_kept_in_files(kind: str, tmp_path: Path) -> None:
    whole = SUMS[kind]()
    point, parts = point_of(whole, 300.0), []
    network = kind == "network and pair"
    for name in ("a.dcd", "b.dcd"):
        trajectory = tmp_path / name if network else None
        parts.append(point.sample(200, 10, [RDF_, PRESSURE], trajectory=trajectory))
        moved(whole)
    both = Samples.pool(parts)
    both.save(tmp_path / "both.npz")
    again = Samples.load(tmp_path / "both.npz", whole, [RDF_, PRESSURE])
    for observable in (RDF_, PRESSURE):
        np.testing.assert_array_equal(
            again.estimate(observable).covariance, both.estimate(observable).covariance
        )
        np.testing.assert_array_equal(
            again.at().jacobian(observable), both.at().jacobian(observable)
        )
    names = ["a_NetworkPotential.dcd", "b_NetworkPotential.dcd"] if network else []
    assert sorted(path.name for path in tmp_path.glob("*.dcd")) == names
    assert [path.name for path in again.learned.files()] == names
    with pytest.raises(StatePointError, match="its order was"):
        Samples.load(tmp_path / "both.npz", Sum(list(whole)[::-1]), [RDF_, PRESSURE])
    for name in names:
        (tmp_path / name).unlink()
        with pytest.raises(FramesError, match="the samples need that file"):
            Samples.load(tmp_path / "both.npz", whole, [RDF_, PRESSURE])
