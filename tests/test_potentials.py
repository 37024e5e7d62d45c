"""Pair potentials: their closed forms, their ends, their gradients and what they refuse."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from scipy.interpolate import CubicSpline
from systems import FreePair, assert_parameter_gradient, context_of, energy_and_forces
from torch import nn

from openmm_diffsim import (
    LennardJones,
    Mie,
    Morse,
    NeuralPair,
    PairPotential,
    PairSum,
    SoftSphere,
    SplinePair,
    Sum,
    TemperatureDependent,
    Yukawa,
)
from openmm_diffsim.errors import PotentialError
from openmm_diffsim.potentials import SplineBasis, flat_parameters, pair_index, prior_of
from openmm_diffsim.potentials.pair.analytic import AnalyticPair

Array = NDArray[np.float64]

CUTOFF = 0.9
BASIS = SplineBasis(0.25, CUTOFF, 40)
KNOTS = {"cutoff": CUTOFF, "r_min": 0.25, "knots": 40}

ANALYTIC: dict[str, tuple[PairPotential, Callable[[Array], Array]]] = {
    "LennardJones": (
        LennardJones(0.34, 0.9, **KNOTS),
        lambda r: 3.6 * ((0.34 / r) ** 12 - (0.34 / r) ** 6),
    ),
    "Mie": (
        # C = n/(n-m) (n/m)^(m/(n-m)) = 14/8 (14/6)^(6/8)
        Mie(0.34, 0.9, repulsive=14, attractive=6, **KNOTS),
        lambda r: 1.75 * (7 / 3) ** 0.75 * 0.9 * ((0.34 / r) ** 14 - (0.34 / r) ** 6),
    ),
    "Morse": (
        Morse(1.2, 9.0, 0.4, **KNOTS),
        lambda r: 1.2 * (np.exp(-18 * (r - 0.4)) - 2 * np.exp(-9 * (r - 0.4))),
    ),
    "Yukawa": (Yukawa(0.7, 3.0, **KNOTS), lambda r: 0.7 * np.exp(-3 * r) / r),
    "SoftSphere": (SoftSphere(0.34, 1.1, exponent=9, **KNOTS), lambda r: 1.1 * (0.34 / r) ** 9),
}


def switch(r: Array, start: float = 0.9 * CUTOFF, end: float = CUTOFF) -> Array:
    """The polynomial of OpenMM's user guide, written out."""
    x = np.clip((r - start) / (end - start), 0, 1)
    return 1 - 10 * x**3 + 15 * x**4 - 6 * x**5


def random_coefficients(seed: int, basis: SplineBasis = BASIS) -> Array:
    return np.random.default_rng(seed).normal(size=basis.n_coefficients)


# Values and forces ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ANALYTIC)
def test_analytic_potential_equals_its_closed_form_at_the_knots(form: str) -> None:
    potential, closed_form = ANALYTIC[form]
    r = potential.basis.centers
    expected = closed_form(r) * switch(r)
    energy = potential.energy(r).detach().numpy()[0]
    np.testing.assert_allclose(energy, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("form", ANALYTIC)
def test_error_between_the_knots_falls_with_the_fourth_power_of_their_spacing(form: str) -> None:
    _, closed_form = ANALYTIC[form]
    r = np.linspace(0.33, 0.78, 500)  # away from r_min and from the switch's own knees
    errors = []
    for knots in (53, 105):
        potential = type(ANALYTIC[form][0])(**arguments_of(form), **{**KNOTS, "knots": knots})
        errors.append(np.abs(potential.energy(r).detach().numpy()[0] - closed_form(r)).max())
    assert errors[1] < 1e-3
    assert errors[0] > 10 * errors[1], f"{errors}: expected a ratio near 16"


def arguments_of(form: str) -> dict[str, Any]:
    return {
        "LennardJones": {"sigma": 0.34, "epsilon": 0.9},
        "Mie": {"sigma": 0.34, "epsilon": 0.9, "repulsive": 14, "attractive": 6},
        "Morse": {"depth": 1.2, "width": 9.0, "r_0": 0.4},
        "Yukawa": {"strength": 0.7, "kappa": 3.0},
        "SoftSphere": {"sigma": 0.34, "epsilon": 1.1, "exponent": 9},
    }[form]


@pytest.mark.parametrize("form", ANALYTIC)
def test_force_is_minus_the_slope_of_the_energy(form: str) -> None:
    potential, _ = ANALYTIC[form]
    r = np.random.default_rng(3).uniform(0.05, 0.95, 300)
    h = 1e-6
    with torch.no_grad():
        slope = (potential.energy(r + h) - potential.energy(r - h)).numpy()[0] / (2 * h)
        force = potential.force(r).numpy()[0]
    # The rounding of an energy of size E makes an error of 1e-16 E / h.
    np.testing.assert_allclose(force, -slope, rtol=1e-6, atol=1e-6 * np.abs(force).max())


def test_force_has_the_size_of_the_closed_forms_slope() -> None:
    potential = LennardJones(0.34, 0.9, CUTOFF, r_min=0.25, knots=400)
    r = np.linspace(0.3, 0.8, 200)
    expected = 24 * 0.9 / r * (2 * (0.34 / r) ** 12 - (0.34 / r) ** 6)
    np.testing.assert_allclose(potential.force(r).detach().numpy()[0], expected, rtol=2e-3)


# The ends ---------------------------------------------------------------------------------------


def test_energy_vanishes_at_the_cutoff_with_two_derivatives() -> None:
    c = random_coefficients(1)
    # The last function ends as (cutoff - r)^3, and no other reaches as far.
    distance = BASIS.spacing * np.array([0.9, 0.3, 1e-2, 1e-4])
    energy = BASIS.values(CUTOFF - distance) @ c
    expected = c[-1] * (distance / BASIS.spacing) ** 3 / 6
    np.testing.assert_allclose(energy, expected, rtol=1e-7)
    slope = BASIS.derivatives(CUTOFF - distance) @ c
    np.testing.assert_allclose(slope, -3 * expected / distance, rtol=1e-7)


@pytest.mark.parametrize("r", [CUTOFF, CUTOFF + 1e-12, 1.1 * CUTOFF, 5 * CUTOFF])
def test_nothing_acts_from_the_cutoff_on(r: float) -> None:
    c = random_coefficients(1)
    assert BASIS.values(r) @ c == 0
    assert BASIS.derivatives(r) @ c == 0


def test_value_slope_and_curvature_are_continuous_at_every_knot() -> None:
    c = random_coefficients(2)
    knots = BASIS.r_min + BASIS.spacing * np.arange(BASIS.knots)
    gap = 1e-6 * BASIS.spacing
    left, right = knots - gap, knots + gap
    value = [BASIS.values(r) @ c for r in (left, right)]
    slope = [BASIS.derivatives(r) @ c for r in (left, right)]
    h = 1e-3 * BASIS.spacing  # one-sided second differences: exact for cubics up to O(h)
    curvature = [
        (BASIS.derivatives(r + sign * h) - BASIS.derivatives(r)) @ c / (sign * h)
        for r, sign in ((left, -1), (right, 1))
    ]
    scale = 1 / BASIS.spacing
    np.testing.assert_allclose(value[0], value[1], atol=1e-4)
    np.testing.assert_allclose(slope[0], slope[1], atol=1e-4 * scale)
    np.testing.assert_allclose(curvature[0], curvature[1], atol=2e-2 * scale**2)


def test_potential_is_a_straight_line_below_r_min() -> None:
    c = random_coefficients(3)
    r = np.linspace(0.0, BASIS.r_min, 30)
    energy = BASIS.values(r) @ c
    slope = (c[1] - c[0]) / BASIS.spacing
    np.testing.assert_allclose(energy, c[0] + slope * (r - BASIS.r_min), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(BASIS.derivatives(r) @ c, slope, rtol=1e-10)


def test_spline_is_the_natural_cubic_spline_through_its_knots() -> None:
    c = random_coefficients(4)
    knots = BASIS.r_min + BASIS.spacing * np.arange(BASIS.knots)
    spline = CubicSpline(knots, BASIS.values(knots) @ c, bc_type="natural")
    r = np.linspace(BASIS.r_min, CUTOFF - 1e-9, 1000)
    np.testing.assert_allclose(BASIS.values(r) @ c, spline(r), atol=1e-12)
    np.testing.assert_allclose(BASIS.derivatives(r) @ c, spline(r, 1), atol=1e-9)


def test_spline_equals_openmms_tabulated_function_between_the_knots() -> None:
    c = random_coefficients(5)
    knots = np.linspace(BASIS.r_min, CUTOFF, BASIS.knots)
    bond = openmm.CustomCompoundBondForce(2, "table(distance(p1, p2))")
    table = openmm.Continuous1DFunction(BASIS.values(knots) @ c, BASIS.r_min, CUTOFF)
    bond.addTabulatedFunction("table", table)
    bond.addBond([0, 1], [])
    system = openmm.System()
    for _ in range(2):
        system.addParticle(1.0)
    system.addForce(bond)
    context = context_of(system, np.zeros((2, 3)), "Reference")
    for r in np.random.default_rng(5).uniform(BASIS.r_min, CUTOFF, 100):
        context.setPositions([[0, 0, 0], [r, 0, 0]])
        energy, forces = energy_and_forces(context)
        assert energy == pytest.approx(float(BASIS.values(r)[0] @ c), abs=1e-11)
        assert forces[1, 0] == pytest.approx(-float(BASIS.derivatives(r)[0] @ c), abs=1e-8)


def test_interpolation_goes_through_the_values_given() -> None:
    u = torch.from_numpy(np.random.default_rng(6).normal(size=(3, BASIS.n_coefficients)))
    c = BASIS.interpolate(u).numpy()
    np.testing.assert_allclose(c @ BASIS.values(BASIS.centers).T, u.numpy(), atol=1e-12)


# SplinePair -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_core_cannot_turn_attractive_whatever_the_parameters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    radii = rng.uniform(BASIS.r_min, 0.5, 3)
    slope = 10 ** rng.uniform(0, 3)
    pair = SplinePair(**KNOTS, n_types=2, core_radius=radii, core_slope=slope)
    pair.values.data.copy_(torch.from_numpy(rng.normal(scale=300.0, size=pair.values.shape)))
    for row, radius in enumerate(radii):
        last_knot = BASIS.centers[BASIS.centers <= radius].max()
        force = pair.force(np.linspace(0.001, last_knot, 400)).detach().numpy()[row]
        assert force.min() >= slope * (1 - 1e-9), f"pair {row}: {force.min()} of {slope}"


@pytest.mark.parametrize("kelvin", [100.0, 300.0, 900.0])
def test_a_core_is_one_of_the_sum_and_not_of_a_term(kelvin: float) -> None:
    """S of u = E - T S is free: a core of its own, times -T, would be an attractive one of u."""
    energetic, entropic = (SplinePair(0.22, 0.6, 60, core_radius=0.3) for _ in range(2))
    pair = TemperatureDependent(energetic, entropic)
    rng = np.random.default_rng(3)
    for term, size in ((energetic, 30.0), (entropic, 0.1)):
        term.set_coefficients(size * rng.normal(size=(1, 58)))
    core = np.linspace(0.2, 0.3, 200)
    assert pair.force(core, kelvin).min() >= 50 * (1 - 1e-9)
    beyond = pair.basis.centers > 0.31
    free = energetic.values - kelvin * entropic.values
    torch.testing.assert_close(pair.spline_coefficients(kelvin)[:, beyond], free[:, beyond])


def test_a_term_may_fall_as_it_likes_where_the_sum_is_repulsive() -> None:
    """Beside a Lennard-Jones core a spline corrects in both directions."""
    spline = SplinePair(0.25, 0.8, 60, core_radius=0.3)
    lennard_jones = LennardJones(0.34, 1.0, 0.8, 0.25, 60)
    slope = torch.from_numpy(spline.basis.centers - 0.8)[None]
    spline.set_coefficients(10 * slope)  # attractive by 10 kJ/mol/nm
    pair = PairSum([spline, lennard_jones])
    expected = lennard_jones.spline_coefficients() + 10 * slope
    torch.testing.assert_close(pair.spline_coefficients(), expected)
    lennard_jones.epsilon.data.zero_()  # and nothing else is repulsive there
    assert pair.force(np.linspace(0.25, 0.29, 100)).min() >= 50 * (1 - 1e-9)


def test_core_leaves_steep_coefficients_and_all_beyond_it_alone() -> None:
    pair = SplinePair(**KNOTS, core_radius=0.3, core_slope=50.0)
    steep = -200 * BASIS.centers
    flat = random_coefficients(7)
    c = np.where(BASIS.centers <= 0.32, steep, flat)
    c[BASIS.centers <= 0.32] += 500
    pair.set_coefficients(c[None])
    np.testing.assert_allclose(pair.spline_coefficients().detach().numpy()[0], c, atol=1e-12)
    flat_pair = SplinePair(**KNOTS, core_radius=0.3).set_coefficients(flat[None])
    beyond = BASIS.centers > 0.3
    np.testing.assert_array_equal(
        flat_pair.spline_coefficients().detach().numpy()[0, beyond], flat[beyond]
    )


def lennard_jones_table(first: float, last: float, sigma: float) -> tuple[Any, Any]:
    r = np.linspace(first, last, 200)
    return r, 4 * ((sigma / r) ** 12 - (sigma / r) ** 6)


def test_a_table_that_goes_on_beyond_the_cutoff_is_taken() -> None:
    pair = SplinePair(**KNOTS).set_table(*lennard_jones_table(0.05, 5.0, 0.34))
    assert abs(float(pair.energy(np.array([0.9]))[0, 0])) < 1e-9


def test_a_table_is_followed_shifted_and_continued_as_a_straight_line() -> None:
    r = np.linspace(0.3, 0.8, 200)
    u = 3.6 * ((0.34 / r) ** 12 - (0.34 / r) ** 6)
    pair = SplinePair(**KNOTS).set_table(r, u)
    inside = BASIS.centers[(BASIS.centers > 0.3) & (BASIS.centers < 0.8)]
    expected = 3.6 * ((0.34 / inside) ** 12 - (0.34 / inside) ** 6) - u[-1]
    np.testing.assert_allclose(pair.energy(inside).detach().numpy()[0], expected, atol=2e-3)
    beyond = BASIS.centers[BASIS.centers > 0.8]
    np.testing.assert_allclose(pair.energy(beyond).detach().numpy()[0], 0.0, atol=1e-10)
    below = BASIS.centers[BASIS.centers < 0.3]
    line = u[0] - u[-1] + (below - 0.3) * (u[1] - u[0]) / (r[1] - r[0])
    np.testing.assert_allclose(pair.energy(below).detach().numpy()[0], line, rtol=1e-6)


# Gradients --------------------------------------------------------------------------------------


def learnable() -> dict[str, PairPotential]:
    """One of each, for two types: each pair of types has its own numbers."""
    knots = {"cutoff": CUTOFF, "r_min": 0.25, "knots": 20, "n_types": 2}
    spline = SplinePair(**knots, core_radius=0.4)
    rng = np.random.default_rng(8)
    spline.values.data.copy_(torch.from_numpy(rng.normal(scale=5.0, size=spline.values.shape)))
    lennard_jones = LennardJones([0.3, 0.33, 0.36], [0.9, 1.0, 1.2], **knots)
    yukawa = Yukawa([0.5, -0.4, 0.3], [3.0, 4.0, 5.0], **knots)
    return {
        "LennardJones": lennard_jones,
        "Mie": Mie([0.3, 0.33, 0.36], 0.9, repulsive=[11, 12, 13], attractive=6.5, **knots),
        "Morse": Morse([0.5, 1.0, 1.5], [8.0, 9.0, 10.0], [0.35, 0.4, 0.45], **knots),
        "Yukawa": yukawa,
        "SoftSphere": SoftSphere([0.3, 0.33, 0.36], 1.1, exponent=[8, 9, 10], **knots),
        "NeuralPair": NeuralPair(prior_sigma=0.3, centers=6, hidden=(5, 4), seed=2, **knots),
        "SplinePair": spline,
        "PairSum": PairSum([lennard_jones, yukawa]),
        "TemperatureDependent": TemperatureDependent(lennard_jones, yukawa),
    }


@pytest.mark.parametrize("form", learnable())
def test_gradient_of_the_coefficients_equals_finite_differences(form: str) -> None:
    potential = learnable()[form]
    direction = torch.from_numpy(
        np.random.default_rng(9).normal(size=(3, potential.basis.n_coefficients))
    )
    # Knots count alike.
    direction *= 1 / (1 + potential.spline_coefficients(150.0).detach().abs())
    assert_parameter_gradient(
        potential, lambda: (potential.spline_coefficients(150.0) * direction).sum()
    )


def test_a_gradient_wrong_by_one_part_in_1e5_is_found() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    module, factor = Wrong(), 1e-5

    def function() -> torch.Tensor:
        y = (module.x**2).sum()
        return y + factor * (y - y.detach())  # right value, gradient too large by the factor

    with pytest.raises(AssertionError):
        assert_parameter_gradient(module, function)
    factor = 0.0
    assert_parameter_gradient(module, function)


def test_fixed_prior_of_a_neural_pair_is_no_parameter() -> None:
    pair = NeuralPair(prior_sigma=0.3, **KNOTS)
    assert not any("prior" in name or name == "mu" for name, _ in pair.named_parameters())
    assert {"prior_sigma", "prior_epsilon"} <= set(pair.state_dict())


def test_untrained_neural_pair_is_near_its_prior() -> None:
    pair = NeuralPair(prior_sigma=0.3, prior_epsilon=0.8, **KNOTS)
    r = BASIS.centers
    prior = 0.8 * (0.3 / r) ** 12 * switch(r)
    difference = pair.energy(r).detach().numpy()[0] - prior
    assert np.abs(difference).max() < 0.05
    assert np.abs(difference).max() > 0, "the network is not there"


def test_neural_pair_depends_on_its_seed_alone() -> None:
    torch.manual_seed(0)
    first = NeuralPair(prior_sigma=0.3, seed=1, **KNOTS).spline_coefficients()
    torch.manual_seed(1)
    assert torch.equal(NeuralPair(prior_sigma=0.3, seed=1, **KNOTS).spline_coefficients(), first)
    assert not torch.equal(
        NeuralPair(prior_sigma=0.3, seed=2, **KNOTS).spline_coefficients(), first
    )


# Splines of closed forms ------------------------------------------------------------------------


class SineCore(AnalyticPair):
    """A steep core, far beyond any thermal energy below 0.3 nm, and a sine beyond."""

    def __init__(self, knots: int, waves: float = 2.0, **options: Any) -> None:
        super().__init__(0.2, CUTOFF, knots, **options)
        self.waves = waves

    def closed_form(self, r: torch.Tensor) -> torch.Tensor:
        return (torch.sin(2 * np.pi * self.waves * r) + 100 * torch.exp(-40 * (r - 0.3)))[None]


def fluid_points(pair: AnalyticPair, kt: float) -> tuple[Array, Array, Array]:
    """Many points between the fourth knot and the cutoff where u < 10 kT, u and -du/dr there."""
    r = torch.linspace(
        pair.basis.r_min + 4 * pair.basis.spacing, CUTOFF, 40_001, dtype=torch.float64
    ).requires_grad_()
    u = pair.switched_form(r)[0]
    (slope,) = torch.autograd.grad(u.sum(), r)
    reached = (u < 10 * kt).detach()
    return r[reached].detach().numpy(), u[reached].detach().numpy(), -slope[reached].numpy()


@pytest.mark.parametrize("temperature", [100.0, 300.0])
def test_table_error_is_the_largest_difference_where_the_fluid_goes(temperature: float) -> None:
    pair = SineCore(60)
    r, u, force = fluid_points(pair, 8.314462618e-3 * temperature)
    du = np.abs(pair.energy(r).detach().numpy()[0] - u)
    df = np.abs(pair.force(r).detach().numpy()[0] - force)
    df /= np.maximum(np.abs(force), np.abs(force).mean())
    error = pair.table_error(temperature)
    assert error.energy == pytest.approx(du.max(), rel=0.1)
    assert error.force == pytest.approx(df.max(), rel=0.1)
    assert error.energy_at == pytest.approx(r[du.argmax()], abs=2 * pair.basis.spacing)
    assert error.force_at == pytest.approx(r[df.argmax()], abs=2 * pair.basis.spacing)
    assert error.largest == max(error.energy, error.force)
    assert pair.table_error(1000.0).energy > pair.table_error(100.0).energy


def test_table_error_at_given_distances() -> None:
    pair = SineCore(60)
    r = np.array([0.21, 0.5])
    difference = (pair.energy(r)[0] - pair.switched_form(torch.tensor(r))[0]).detach().abs()
    error = pair.table_error(r=r)
    assert error.energy == pytest.approx(float(difference.max()), rel=1e-12)
    assert error.energy_at == 0.21


def test_table_error_is_of_the_worst_pair_of_types() -> None:
    sigma = [0.30, 0.34, 0.40]
    alone = [LennardJones(s, 0.9, **KNOTS).table_error() for s in sigma]
    together = LennardJones(sigma, 0.9, n_types=2, **KNOTS).table_error()
    assert together.energy == pytest.approx(max(error.energy for error in alone), rel=1e-9)
    assert together.force == pytest.approx(max(error.force for error in alone), rel=1e-9)


def test_refined_knots_are_within_tolerance_and_keep_the_potential() -> None:
    pair = SineCore(20)
    assert pair.table_error().largest > 1e-3
    assert pair.refine_knots()
    assert pair.table_error().largest <= 1e-3
    knots = pair.basis.knots
    assert not pair.refine_knots() and pair.basis.knots == knots
    assert pair.refine_knots(tolerance=1e-5) and pair.basis.knots > knots
    assert pair.spline_coefficients().shape == (1, pair.basis.knots - 2)
    r = pair.basis.centers
    np.testing.assert_allclose(
        pair.energy(r).detach(), pair.switched_form(torch.from_numpy(r)).detach(), atol=1e-10
    )
    assert pickle.loads(pickle.dumps(pair)).table_error() == pair.table_error()


def test_form_too_rough_for_any_knots_is_refused() -> None:
    pair = SineCore(20, waves=1e4)
    with pytest.raises(PotentialError, match="with 2000 knots its spline is still off by"):
        pair.refine_knots()
    assert pair.basis.knots == 20


def trained(pair: NeuralPair, roughness: float = 1.0, size: float = 5.0) -> NeuralPair:
    """As it may be after training: an output layer of full size, of ``size`` kJ/mol."""
    layers = [layer for layer in pair.network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer in layers[:-1]:
            layer.weight.mul_(roughness)
        layers[-1].weight.mul_(100 * size)  # it starts at a hundredth
    return pair


def test_default_knots_do_for_the_weights_of_training() -> None:
    """At least nine of ten draws; the others are warned of."""
    assert NeuralPair(0.25, CUTOFF, 0.3).table_error().largest < 3e-4
    within = 0
    for seed in range(20):
        pair = trained(NeuralPair(0.25, CUTOFF, 0.3, seed=seed))
        fine = pair.table_error().largest <= 1e-3
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pair.check_table()
        assert bool(caught) != fine
        within += fine
    assert within >= 18


def test_default_knots_do_for_a_network_that_became_steep() -> None:
    """Five times as far off as its tolerance on 12 knots a center, as it was on water."""
    pair = trained(NeuralPair(0.25, CUTOFF, 0.3, seed=3), roughness=3.0)
    half = NeuralPair(0.25, CUTOFF, 0.3, knots=288)
    half.load_state_dict(pair.state_dict())
    assert half.table_error().largest > 2e-3 > 1e-3 > pair.table_error().largest


def test_network_too_rough_for_its_knots_is_warned_of_once_until_it_has_more() -> None:
    pair = trained(NeuralPair(0.25, CUTOFF, 0.3), roughness=5.0)
    words = r"spline on 576 knots is off by .*refine_knots\(\) .* knots=1152"
    with pytest.warns(RuntimeWarning, match=words):
        pair.check(300.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair.check(300.0)  # each round of a fit asks
    with pytest.warns(RuntimeWarning, match=words):
        error = pair.check_table(300.0)
    assert error == pair.table_error(300.0)
    assert pair.refine_knots()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair.check_table()


def test_a_sum_on_one_force_warns_of_its_terms() -> None:
    rough = trained(NeuralPair(0.25, CUTOFF, 0.3), roughness=5.0)
    spline = SplinePair(0.25, CUTOFF, rough.basis.knots)
    for whole in (PairSum([spline, rough]), TemperatureDependent(rough, spline)):
        rough._told = False
        with pytest.warns(RuntimeWarning, match="spline on 576 knots"):
            whole.check(300.0)


def test_tolerance_decides_on_the_knots_of_a_neural_pair() -> None:
    knots = [
        NeuralPair(0.25, CUTOFF, 0.3, centers=8, tolerance=tolerance).basis.knots
        for tolerance in (1e-2, 1e-3, 1e-4)
    ]
    assert 192 == knots[0] <= knots[1] < knots[2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # knots that are given are not checked
        assert trained(NeuralPair(0.25, CUTOFF, 0.3, knots=20)).check_table() is None
    with pytest.raises(PotentialError, match="knots: expected a number or 'auto', got 'many'"):
        NeuralPair(0.25, CUTOFF, 0.3, knots="many")


# Types, sums, temperature -----------------------------------------------------------------------


def test_pairs_of_types_are_ordered_as_the_upper_triangle() -> None:
    assert pair_index(3).tolist() == [[0, 1, 2], [1, 3, 4], [2, 4, 5]]
    potential = LennardJones(0.34, [1, 2, 3, 4, 5, 6], CUTOFF, knots=20, n_types=3)
    depth = potential.energy([0.4]).detach().numpy()[:, 0]
    assert depth.shape == (6,)
    np.testing.assert_allclose(depth / depth[0], [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("form", learnable())
def test_every_pair_of_types_has_its_own_row(form: str) -> None:
    potential = learnable()[form]
    assert potential.spline_coefficients(150.0).shape == (3, 18)
    assert potential.spline_coefficients(150.0).dtype == torch.float64
    assert potential.energy(np.array([0.3, 0.4]), 150.0).shape == (3, 2)


def test_sums_add_energies() -> None:
    a, b, c = (ANALYTIC[form][0] for form in ("LennardJones", "Yukawa", "Morse"))
    r = np.linspace(0.1, 1.0, 50)
    expected = a.energy(r) + b.energy(r) + c.energy(r)
    torch.testing.assert_close(PairSum([a, b, c]).energy(r), expected)
    assert len(list(PairSum([a, b]).parameters())) == 4


def test_temperature_dependence_is_energy_less_temperature_times_entropy() -> None:
    energetic, entropic = ANALYTIC["LennardJones"][0], ANALYTIC["Yukawa"][0]
    potential = TemperatureDependent(energetic, entropic)
    r = np.linspace(0.1, 1.0, 50)
    for temperature in (100.0, 300.0):
        expected = energetic.energy(r) - temperature * entropic.energy(r)
        torch.testing.assert_close(potential.energy(r, temperature), expected)
    nested = PairSum([potential, energetic])
    torch.testing.assert_close(
        nested.energy(r, 300.0), potential.energy(r, 300.0) + energetic.energy(r)
    )


def test_parameters_survive_state_dict_and_pickle() -> None:
    for form, potential in learnable().items():
        again = pickle.loads(pickle.dumps(potential))
        assert torch.equal(
            again.spline_coefficients(150.0), potential.spline_coefficients(150.0)
        ), form
        for parameter in again.parameters():
            parameter.data.zero_()
        again.load_state_dict(potential.state_dict())
        assert torch.equal(
            again.spline_coefficients(150.0), potential.spline_coefficients(150.0)
        ), form


# Quantities -------------------------------------------------------------------------------------

A, KCAL = unit.angstrom, unit.kilocalorie_per_mole
TABLE = np.arange(2.0, 9.0), np.arange(7.0)[::-1]
QUANTITIES: dict[str, tuple[Callable[[], PairPotential], Callable[[], PairPotential]]] = {
    "LennardJones": (
        lambda: LennardJones(3.4 * A, 1 * KCAL, 9 * A, 3 * A, switch_distance=8 * A),
        lambda: LennardJones(0.34, 4.184, 0.9, 0.3, switch_distance=0.8),
    ),
    "Mie of two types": (
        lambda: Mie([3.4 * A, 0.35, 3.6 * A], 1 * KCAL, 9 * A, n_types=2),
        lambda: Mie([0.34, 0.35, 0.36], 4.184, 0.9, n_types=2),
    ),
    "Morse": (
        lambda: Morse(1 * KCAL, 1 / A, 3.8 * A, 9 * A),
        lambda: Morse(4.184, 10.0, 0.38, 0.9),
    ),
    "Yukawa": (
        lambda: Yukawa(1 * KCAL * A, 0.3 / A, 9 * A, 3 * A),
        lambda: Yukawa(0.4184, 3.0, 0.9, 0.3),
    ),
    "SoftSphere": (
        lambda: SoftSphere(3.4 * A, 1 * KCAL, 9 * A),
        lambda: SoftSphere(0.34, 4.184, 0.9),
    ),
    "SplinePair": (
        lambda: SplinePair(2.7 * A, 8 * A, 20, core_radius=3 * A, core_slope=1 * KCAL / A),
        lambda: SplinePair(0.27, 0.8, 20, core_radius=0.3, core_slope=41.84),
    ),
    "a table": (
        lambda: SplinePair(0.27, 0.8, 20).set_table(
            np.arange(2.0, 9) * A, np.arange(7)[::-1] * KCAL
        ),
        lambda: SplinePair(0.27, 0.8, 20).set_table(
            np.arange(2.0, 9) / 10, np.arange(7)[::-1] * 4.184
        ),
    ),
    "NeuralPair": (
        lambda: NeuralPair(2.7 * A, 8 * A, 3 * A, 1 * KCAL, knots=40, centers=6),
        lambda: NeuralPair(0.27, 0.8, 0.3, 4.184, knots=40, centers=6),
    ),
}


@pytest.mark.parametrize("kind", QUANTITIES)
def test_quantities_are_converted_wherever_a_number_is_taken(kind: str) -> None:
    given, plain = (make() for make in QUANTITIES[kind])
    r = np.linspace(0.25, 0.85, 30)
    wanted = plain.energy(r).detach()
    torch.testing.assert_close(given.energy(10 * r * A).detach(), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(given.force(r), plain.force(r), rtol=1e-8, atol=1e-7)


# What is refused --------------------------------------------------------------------------------

OTHER = LennardJones(0.34, 0.9, cutoff=0.8, r_min=0.25, knots=40)

REFUSED: dict[str, tuple[Callable[[], Any], tuple[str, ...], dict[str, Any]]] = {
    "r_min beyond the cutoff": (
        lambda: SplineBasis(0.95, 0.9, 40),
        ("0.95", "0.9 nm"),
        {"r_min": 0.95, "cutoff": 0.9},
    ),
    "r_min of zero": (lambda: SplinePair(0.0, 0.9), ("r_min = 0.0",), {"r_min": 0.0}),
    "r_min of zero, analytic": (
        lambda: LennardJones(0.34, 1.0, 0.9, r_min=0.0),
        ("r_min = 0.0",),
        {"r_min": 0.0},
    ),
    "infinite cutoff": (lambda: SplineBasis(0.2, np.inf, 40), ("inf",), {"cutoff": np.inf}),
    "NaN r_min": (lambda: SplineBasis(np.nan, 0.9, 40), ("nan",), {"cutoff": 0.9}),
    "few knots": (lambda: SplineBasis(0.2, 0.9, 5), ("6", "5"), {"knots": 5}),
    "no type": (lambda: SplinePair(0.2, 0.9, n_types=0), ("got 0",), {"n_types": 0}),
    "sigma for two pairs": (
        lambda: LennardJones([0.3, 0.4], 1.0, 0.9, n_types=2),
        ("sigma", "3", "(2,)"),
        {"expected": 3, "got": (2,)},
    ),
    "NaN epsilon": (lambda: LennardJones(0.3, np.nan, 0.9), ("epsilon", "nan"), {}),
    "sigma of zero": (lambda: LennardJones(0.0, 1.0, 0.9), ("sigma", "from", "0.0"), {}),
    "negative sigma": (
        lambda: LennardJones(-0.3, 1.0, 0.9, r_min=0.2),
        ("sigma", "from", "-0.3"),
        {"got": -0.3},
    ),
    "one sigma of zero": (
        lambda: Mie([0.3, 0.0, 0.3], 1.0, 0.9, r_min=0.2, n_types=2),
        ("sigma", "[0.3, 0.0, 0.3]"),
        {},
    ),
    "infinite sigma": (lambda: SoftSphere(np.inf, 1.0, 0.9), ("sigma", "inf"), {}),
    "sigma in words": (lambda: LennardJones("large", 1.0, 0.9), ("sigma", "'large'"), {}),
    "negative epsilon": (lambda: SoftSphere(0.3, -1.0, 0.9), ("epsilon", "from 0"), {}),
    "no exponent": (lambda: SoftSphere(0.3, 1.0, 0.9, exponent=0), ("exponent", "from"), {}),
    "negative depth": (lambda: Morse(-1.0, 10.0, 0.4, 0.9), ("depth", "from 0"), {}),
    "no width": (lambda: Morse(1.0, 0.0, 0.4, 0.9), ("width", "from"), {}),
    "r_0 of zero": (lambda: Morse(1.0, 10.0, 0.0, 0.9), ("r_0", "from"), {}),
    "growing Yukawa": (lambda: Yukawa(1.0, -2.0, 0.9, 0.2), ("kappa", "from 0"), {}),
    "no prior_sigma": (lambda: NeuralPair(0.2, 0.9, 0.0), ("prior_sigma", "from"), {}),
    "one center": (lambda: NeuralPair(0.2, 0.9, 0.3, centers=1), ("centers", "2", "1"), {}),
    "no hidden width": (lambda: NeuralPair(0.2, 0.9, 0.3, hidden=(8, 0)), ("hidden", "0"), {}),
    "no tolerance": (lambda: NeuralPair(0.2, 0.9, 0.3, tolerance=0.0), ("tolerance",), {}),
    "knots by halves": (lambda: SplinePair(0.2, 0.9, 20.5), ("knots", "20.5"), {}),
    "types by halves": (lambda: SplinePair(0.2, 0.9, n_types=1.5), ("n_types", "1.5"), {}),
    "NaN core_slope": (lambda: SplinePair(0.2, 0.9, core_slope=np.nan), ("core_slope",), {}),
    "cutoff below the core of sigma": (lambda: LennardJones(0.5, 1.0, 0.3), ("r_min", "0.4"), {}),
    "table with a NaN": (
        lambda: SplinePair(0.2, 0.9).set_table([0.3, 0.4, 0.5, 0.6], [2, 1, np.nan, 0]),
        ("u(r)", "NaN"),
        {},
    ),
    "switch beyond the cutoff": (
        lambda: LennardJones(0.3, 1.0, 0.9, switch_distance=0.9),
        ("switch_distance", "0.9"),
        {"switch_distance": 0.9, "cutoff": 0.9},
    ),
    "exponents the wrong way": (
        lambda: Mie(0.3, 1.0, 0.9, repulsive=6, attractive=12),
        ("6", "12"),
        {"repulsive": 6, "attractive": 12},
    ),
    "core_slope of zero": (
        lambda: SplinePair(0.2, 0.9, core_slope=0.0),
        ("core_slope", "0.0"),
        {"got": 0.0},
    ),
    "core_radius of the wrong shape": (
        lambda: SplinePair(0.2, 0.9).set_core([0.2, 0.3]),
        ("core_radius", "(2,)"),
        {"got": (2,)},
    ),
    "coefficients of the wrong shape": (
        lambda: SplinePair(0.2, 0.9, knots=10).set_coefficients(np.zeros((1, 9))),
        ("(1, 8)", "(1, 9)"),
        {"got": (1, 9), "expected": (1, 8)},
    ),
    "NaN coefficient": (
        lambda: SplinePair(0.2, 0.9, knots=10).set_coefficients(np.full((1, 8), np.nan)),
        ("NaN",),
        {},
    ),
    "table with falling r": (
        lambda: SplinePair(0.2, 0.9).set_table([0.5, 0.4, 0.3, 0.2], [0, 1, 2, 3]),
        ("rising r", "(4,)"),
        {"shape_r": (4,)},
    ),
    "table of three points": (
        lambda: SplinePair(0.2, 0.9).set_table([0.3, 0.4, 0.5], [2, 1, 0]),
        ("4 points", "(3,)"),
        {"shape_u": (3,)},
    ),
    "table of a tenth of the range": (
        lambda: SplinePair(0.2, 0.9).set_table(np.linspace(0.3, 0.37, 20), np.zeros(20)),
        ("from 0.3 to 0.37 nm", "cover r_min = 0.2 nm to the cutoff, 0.9 nm", "write 0"),
        {"expected": (0.2, 0.9)},
    ),
    "table that ends at half": (
        lambda: SplinePair(0.2, 0.9).set_table(np.linspace(0.1, 0.5, 20), np.zeros(20)),
        ("two thirds",),
        {"got": (0.1, 0.5)},
    ),
    "table in angstrom": (
        lambda: SplinePair(0.2, 0.9).set_table(np.linspace(2, 9, 20), np.zeros(20)),
        ("from 2 to 9 nm", "it would in angstrom"),
        {},
    ),
    "table in angstrom from 0.1 on": (
        lambda: SplinePair(0.2, 0.9).set_table(*lennard_jones_table(0.1, 12, 3.4)),
        ("from 0.1 to 12 nm", "it is all core. Is r in angstrom?"),
        {},
    ),
    "table in nm taken for angstrom": (
        lambda: SplinePair(0.2, 0.9).set_table(np.linspace(0.02, 0.09, 20), np.zeros(20)),
        ("from 0.02 to 0.09 nm",),
        {},
    ),
    "sum without a list": (
        lambda: PairSum(OTHER, OTHER),  # type: ignore[arg-type]
        ("got LennardJones, expected a list of potentials",),
        {},
    ),
    "several forces without a list": (
        lambda: Sum(OTHER, OTHER),  # type: ignore[arg-type]
        ("got LennardJones, expected a list of potentials",),
        {},
    ),
    "sum of numbers": (lambda: PairSum([1.0, 2.0]), ("got float",), {}),  # type: ignore[list-item]
    "arguments in another order": (
        lambda: Morse(0.38, 1.0, 10.0, cutoff=0.8),
        ("r_0: got 10 nm, from which r_min = 0.6 r_0 = 6 nm follows", "cutoff = 0.8 nm"),
        {"cutoff": 0.8},
    ),
    "length in kelvin": (
        lambda: SplinePair(2.7 * unit.kelvin, 0.9),
        ("r_min", "kelvin"),
        {},
    ),
    "sigma in kelvin": (
        lambda: LennardJones(3.4 * unit.kelvin, 1.0, 0.9),
        ("sigma", "kelvin"),
        {},
    ),
    "pair of types that is not there": (
        lambda: SplinePair(0.2, 0.9).set_table(np.linspace(0.2, 0.9, 20), np.zeros(20), 1),
        ("pair: got 1, expected a whole number from 0 to 0",),
        {"got": 1},
    ),
    "sum of nothing": (lambda: PairSum([]), ("none",), {}),
    "sum on other knots": (
        lambda: PairSum([ANALYTIC["Morse"][0], OTHER]),
        ("cutoff=0.9", "cutoff=0.8"),
        {},
    ),
    "sum of other types": (
        lambda: PairSum([FreePair(BASIS), FreePair(BASIS, n_types=2)]),
        ("1 type", "with 2"),
        {},
    ),
    "entropy on other knots": (
        lambda: TemperatureDependent(ANALYTIC["Morse"][0], OTHER),
        ("cutoff=0.8",),
        {},
    ),
    "no temperature": (
        lambda: TemperatureDependent(OTHER, OTHER).spline_coefficients(),
        ("TemperatureDependent", "temperature="),
        {},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_argument_is_refused_by_name_and_number(case: str) -> None:
    make, words, numbers = REFUSED[case]
    with pytest.raises(PotentialError) as error:
        make()
    for word in words:
        assert word in str(error.value)
    for name, number in numbers.items():
        assert getattr(error.value, name) == number


# What is known of parameters beforehand -----------------------------------------------------------


def test_a_prior_is_about_what_parameters_were_when_it_was_set() -> None:
    pair = LennardJones([0.3, 0.32, 0.34], 0.8, 0.9, n_types=2)
    assert prior_of(pair) is None
    assert pair.set_prior({"sigma": [0.01, 0.02, np.inf]}) is pair
    with torch.no_grad():
        pair.sigma.add_(0.05)
    prior = prior_of(pair)
    assert prior is not None
    np.testing.assert_allclose(prior.mean, [0.3, 0.32, 0.34, 0.8, 0.8, 0.8])
    np.testing.assert_allclose(prior.standard_deviation, [0.01, 0.02, np.inf, *[np.inf] * 3])
    theta = flat_parameters(pair).numpy()
    rows, offsets = prior.rows(theta)
    np.testing.assert_allclose(rows.T @ rows, np.diag(prior.precision))
    np.testing.assert_allclose(rows.T @ offsets, prior.slope(theta))
    assert prior_of(pair.set_prior(None)) is None


class Known(LennardJones):
    """Of a kind that knows itself how far it may be off: of all that is learned together."""

    def parameter_prior(self) -> tuple[Array, Array]:
        known = {"sigma": (0.3, 0.03), "epsilon": (0.5, 0.2)}
        own = [known[name] for name, p in self.named_parameters() if p.requires_grad]
        mean, spread = zip(*own, strict=True)
        return np.array(mean), np.array(spread)


def test_a_user_is_believed_before_the_kind_and_a_sum_before_its_terms() -> None:
    first, second = Known(0.3, 0.5, 0.9, name="a"), Known(0.3, 0.5, 0.9, name="b")
    third = LennardJones(0.3, 0.5, 0.9, name="c")
    total = first.set_prior({"epsilon": 0.1}) + second + third
    assert list(total.by_name()) == [f"{n}.{p}" for n in "abc" for p in ("sigma", "epsilon")]
    total.set_prior({"b.sigma": 0.01})
    prior = prior_of(total)
    assert prior is not None
    np.testing.assert_allclose(prior.standard_deviation, [0.03, 0.1, 0.01, 0.2, np.inf, np.inf])
    np.testing.assert_array_equal(total.parameter_prior()[1][[0, 1, 4]], [0.03, 0.1, np.inf])  # type: ignore[index]
    second.sigma.requires_grad_(False)  # what is not learned is not in it
    fewer = prior_of(total)
    assert fewer is not None
    np.testing.assert_allclose(fewer.standard_deviation, [0.03, 0.1, 0.2, np.inf, np.inf])


def test_a_prior_may_have_a_unit() -> None:
    pair = LennardJones(0.3, 0.5, 0.9, name="a")
    (pair + Known(0.3, 0.5, 0.9, name="b")).set_prior({"a.sigma": 0.1 * unit.angstrom})
    pair.set_prior({"sigma": 0.1 * unit.angstrom})
    np.testing.assert_allclose(pair.own_prior["sigma"][1], 0.01)


@pytest.mark.parametrize(
    "prior",
    [{"sigma": p} for p in (0, -1.0, [1, 2], np.nan, "x", None, 1 * unit.kelvin)] + [{"s": 1}, 0.1],
)
def test_a_prior_that_cannot_be_is_refused(prior: Any) -> None:
    with pytest.raises(PotentialError, match=r"prior of .*(sigma, epsilon|positive)"):
        LennardJones(0.3, 0.5, 0.9).set_prior(prior)


def test_a_kind_whose_prior_cannot_be_is_refused() -> None:
    pair = Known(0.3, 0.5, 0.9)
    pair.parameter_prior = lambda: (np.zeros(2), np.zeros(2))  # type: ignore[method-assign]
    with pytest.raises(PotentialError, match=r"Known\.parameter_prior"):
        prior_of(pair)
