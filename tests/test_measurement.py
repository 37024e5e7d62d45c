"""How a target was measured: what the instrument does to the model, and what is unknown of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from scipy.integrate import quad
from scipy.optimize import least_squares
from scipy.special import ndtr

from openmm_diffsim import RDF, VACF, AngleDistribution, Pressure, Target
from openmm_diffsim.curve import Curve
from openmm_diffsim.errors import TargetError
from openmm_diffsim.refinement import Comparison
from openmm_diffsim.refinement.agreement import Sensitivity, compared
from openmm_diffsim.refinement.low_rank import LowRank
from openmm_diffsim.refinement.methods.boltzmann import _check_reach
from openmm_diffsim.refinement.methods.gauss_newton import LinearModel

Array = NDArray[np.float64]

ANYWHERE: Any = SimpleNamespace(check_observable=lambda o: None, timestep=0.002, place=lambda: None)
G = RDF(1.2, 240)  # bins of 5 pm
R = np.arange(0.0125, 1.19, 0.025)
PEAK, SPREAD = 0.5, 0.06


def bump(r: Any) -> Any:
    return np.exp(-0.5 * ((r - PEAK) / SPREAD) ** 2)


def counted(function: Callable[[Any], Any], edges: Array, growth: float = 2.0) -> Array:
    """Means of a density over bins, each by its volume."""
    bins = pairwise(edges)
    counts = [quad(lambda r: function(r) * r**growth, a, b, epsabs=1e-14)[0] for a, b in bins]
    return np.array(counts) * (growth + 1) / np.diff(edges ** (growth + 1))


def target(observable: Any = G, x: Array = R, **options: Any) -> Target:
    options.setdefault("uncertainty", 0.02)
    return Target(ANYWHERE, observable, x, np.ones_like(x), as_it_is=True, **options)


SHARP = 1e-4  # bins of 5 pm: the mean over one is not the value at its centre

MODEL = 1 + counted(bump, G.edges)
MODEL_AT_R = 1 + bump(R)


# What the instrument does ------------------------------------------------------------------------


def test_a_gaussian_is_broadened_by_the_resolution() -> None:
    width = np.hypot(SPREAD, 0.03)
    found = target(resolution=0.03).response(MODEL)
    expected = 1 + SPREAD / width * np.exp(-0.5 * ((R - PEAK) / width) ** 2)
    np.testing.assert_allclose(found, expected, atol=SHARP)


def test_each_point_has_its_own_resolution_in_the_order_it_was_given() -> None:
    sigma = np.linspace(0.02, 0.05, len(R))
    order = np.random.default_rng(3).permutation(len(R))
    made = target(x=R[order], resolution=sigma[order])
    width = np.hypot(SPREAD, sigma)
    expected = 1 + SPREAD / width * np.exp(-0.5 * ((R - PEAK) / width) ** 2)
    np.testing.assert_allclose(made.response(MODEL), expected, atol=SHARP)


def test_soft_bins_smear_counts() -> None:
    sigma, places = 0.03, R[8:40]

    def seen(r: float) -> float:
        def kernel(s: float) -> float:
            return float(s**2 * np.exp(-0.5 * ((r - s) / sigma) ** 2))

        return 1 + quad(lambda s: bump(s) * kernel(s), 0, 1.5)[0] / quad(kernel, 0, 1.5)[0]

    found = target(x=places, resolution=sigma, smear="counts").response(MODEL)
    np.testing.assert_allclose(found, [seen(r) for r in places], atol=SHARP)


@pytest.mark.parametrize("smear", ["density", "counts"])
@pytest.mark.parametrize("points", ["point", "bin"])
@pytest.mark.parametrize("sigma", [1e-4, 0.03, 0.2])
def test_an_ideal_gas_stays_one_from_zero_to_beyond_the_last_bin(
    smear: str, points: str, sigma: float
) -> None:
    x = np.append(0.0025, R)
    found = target(x=x, resolution=sigma, smear=smear, points=points).response(np.ones(240))
    np.testing.assert_allclose(found, 1, rtol=1e-9)


def test_beyond_its_last_value_a_distribution_is_zero_and_a_function_of_time_goes_on() -> None:
    angles = AngleDistribution(0.35, 90)
    p = target(angles, angles.theta, resolution=0.1).response(np.full(90, 0.5))
    assert p[-1] == pytest.approx(0.5 * ndtr(np.pi / 180 / 0.1), abs=1e-4)  # of a bin to the end
    t = np.arange(5) * 0.02
    c = target(VACF(range(0, 41, 10)), t, resolution=0.01).response(np.full(5, 0.7))
    np.testing.assert_allclose(c, 0.7, rtol=1e-9)


def test_bins_that_are_the_models_have_its_values() -> None:
    made = target(x=G.r, points="bin")
    np.testing.assert_allclose(made.response.matrix, np.eye(240), atol=1e-9)
    random = np.random.default_rng(1).normal(size=240)
    np.testing.assert_allclose(made.response(random), random, atol=1e-9)


@pytest.mark.parametrize("edges", [np.linspace(0.1, 1.1, 31), np.linspace(0.123, 1.013, 24)])
def test_bins_hold_the_mean_by_volume(edges: Array) -> None:
    x = 0.5 * (edges[1:] + edges[:-1])
    for points in (edges, (edges[0], edges[-1]), "bin", edges * unit.nanometer):
        found = target(x=x, points=points).response(MODEL)
        np.testing.assert_allclose(found, 1 + counted(bump, edges), atol=2e-6)


def test_bins_of_smeared_counts_hold_their_mean() -> None:
    edges = np.linspace(0.3, 0.8, 11)
    width = np.hypot(SPREAD, 0.02)
    x = 0.5 * (edges[1:] + edges[:-1])
    expected = counted(
        lambda r: 1 + SPREAD / width * np.exp(-0.5 * ((r - PEAK) / width) ** 2), edges
    )
    found = target(x=x, points="bin", resolution=0.02).response(MODEL)
    np.testing.assert_allclose(found, expected, atol=SHARP)


def test_other_shells_are_a_known_factor() -> None:
    edges = np.linspace(0.2, 1.0, 21)
    x, width = 0.5 * (edges[1:] + edges[:-1]), 0.04
    exact = target(x=x, points=edges).response(MODEL)
    volume = np.diff(edges**3) / 3
    others = {"centre": x**2 * width, "lower": edges[:-1] ** 2 * width}
    for name, other in others.items():
        found = target(x=x, points=edges, shells=name).response(MODEL)
        np.testing.assert_allclose(found, exact * volume / other, rtol=1e-12)
    shifted = edges + 0.01
    found = target(x=x, points=edges, shells=shifted).response(MODEL)
    np.testing.assert_allclose(found, exact * volume * 3 / np.diff(shifted**3), rtol=1e-12)


SOFT: dict[str, Any] = {
    "resolution": 0.9 / 35,
    "smear": "counts",
    "shells": (0.2, 1.1),
    "normalisation": "unit integral",
}


def test_soft_counts_over_their_own_integral() -> None:
    """As in the code of the seed papers: Gaussians about places that are no centres of shells."""
    x, edges = np.linspace(0.2, 1.1, 36), np.linspace(0.2, 1.1, 37)
    fine = np.linspace(0.0, 1.5, 30_001)
    pairs = (1 + bump(fine)) * fine**2
    counts = np.exp(-0.5 * ((x[:, None] - fine) / SOFT["resolution"]) ** 2) @ pairs
    volumes = 4 / 3 * np.pi * np.diff(edges**3)
    expected = counts / counts.sum() / (volumes / (4 / 3 * np.pi * 1.1**3))
    found = target(x=x, **SOFT)
    np.testing.assert_allclose(found.response(MODEL), expected, atol=3e-5)
    cut = target(x=x, window=(0.4, 0.9), **SOFT)
    assert cut.x is not None
    inside = np.isin(x, cut.x)
    assert 0 < inside.sum() < len(x)
    np.testing.assert_allclose(cut.response(MODEL), expected[inside], atol=3e-5)


def test_the_jacobian_of_a_unit_integral_is_its_derivative() -> None:
    made = target(x=np.linspace(0.2, 1.1, 36), **SOFT)
    value, (slope,) = made.linearized(torch.from_numpy(MODEL))
    np.testing.assert_allclose(made.predict(torch.from_numpy(MODEL)).numpy(), value, rtol=1e-12)
    for k in (10, 99, 180):
        step = np.zeros(240)
        step[k] = 1e-4
        difference = (made.response(MODEL + step) - made.response(MODEL - step)) / 2e-4
        np.testing.assert_allclose(slope[:, k], difference, rtol=1e-6, atol=1e-10)


def test_an_integral_may_be_any_number() -> None:
    edges = np.linspace(0.1, 1.1, 41)
    made = target(x=0.5 * (edges[1:] + edges[:-1]), points=edges, normalisation=7.0)
    volumes = 4 / 3 * np.pi * np.diff(edges**3)
    assert made.response(MODEL) @ volumes == pytest.approx(7.0)


def test_a_distribution_of_unit_integral_has_one() -> None:
    angles = AngleDistribution(0.35, 30)
    made = target(angles, angles.theta, points="bin", normalisation="unit integral")
    p = made.response(3.0 + np.sin(angles.theta))
    assert p.sum() * np.pi / 30 == pytest.approx(1.0)


def test_a_matrix_is_taken_as_it_is(tmp_path: Path) -> None:
    matrix = np.random.default_rng(2).normal(size=(len(R), 240))
    np.save(tmp_path / "m.npy", matrix)
    for given in (matrix, tmp_path / "m.npy"):
        made = target(x=R, resolution=given, window=(0.3, 0.9))
        assert made.x is not None
        np.testing.assert_array_equal(made.response.matrix, matrix[np.isin(R, made.x)])


# What is unknown ---------------------------------------------------------------------------------


def linear_fit(goal: Target, slopes: Array, start: Array, steps: int = 60) -> Array:
    """Parameters of y = y_0 + S c, the scale marginalised beside the model's own prediction."""
    c = np.zeros(slopes.shape[1])
    for _ in range(steps):
        prediction = start + slopes @ c
        view = comparison(goal, prediction, slopes)
        c = c + LinearModel([view], [np.eye(len(c))], [c], [None]).step().change
    return c


def comparison(goal: Target, prediction: Array, slopes: Array) -> Comparison:
    noise = LowRank.made(np.zeros(len(prediction))), LowRank.made(goal.uncertainty**2)
    nuisances = [goal.unknowns.at(prediction, np.ones(240), is_sampled=False)]
    return Comparison([goal], prediction, slopes, *noise, 1e3, None, nuisances)


def shapes(x: Array) -> Array:
    return np.stack([np.sin(6 * x), np.cos(9 * x), x**2], axis=1)


def test_a_marginalised_scale_is_that_of_joint_least_squares() -> None:
    random = np.random.default_rng(5)
    start, slopes = 1 + 0.5 * np.sin(3 * R), shapes(R)
    y = 1.03 * (start + slopes @ [0.2, -0.1, 0.3]) + 0.02 * random.normal(size=len(R))
    goal = Target(ANYWHERE, G, R, y, uncertainty=0.02, scale=0.02, as_it_is=True)

    def residuals(z: Array) -> Array:
        model = (1 + 0.02 * z[3]) * (start + slopes @ z[:3])
        return np.append((model - y) / 0.02, z[3])

    joint = least_squares(residuals, np.zeros(4), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    c = linear_fit(goal, slopes, start)
    np.testing.assert_allclose(c, joint.x[:3], atol=1e-8)
    view = comparison(goal, start + slopes @ c, slopes)
    covariance = np.linalg.inv(slopes.T @ (view.precision @ slopes))
    (agreed,) = compared(view, Sensitivity(slopes, covariance))
    (scale,) = agreed.nuisances
    assert (scale.name, scale.prior) == ("scale", 0.02)
    assert scale.value == pytest.approx(1 + 0.02 * joint.x[3], abs=1e-8)
    errors = np.sqrt(np.diag(np.linalg.inv(joint.jac.T @ joint.jac)))
    assert scale.error == pytest.approx(0.02 * errors[3], rel=2e-2)  # d(scale)/dc is left out
    np.testing.assert_allclose(
        view.unexplained, start + slopes @ c - y + 0.02 * joint.x[3] * (start + slopes @ c)
    )
    assert agreed.is_reached


def test_offset_background_and_systematic_errors_are_added_to_the_covariance() -> None:
    both = np.stack([0.01 * R, np.where(R > 0.5, 0.03, -0.01)], axis=1)
    order = np.random.default_rng(3).permutation(len(R))
    made = target(x=R[order], scale=0, offset=0.05, background=(0.1, 0.2), systematic=both[order])
    view = comparison(made, np.ones(len(R)), np.zeros((len(R), 1)))
    smooth = 0.01 * np.exp(-0.5 * ((R[:, None] - R) / 0.2) ** 2)
    expected = 0.05**2 + smooth + both @ both.T
    np.testing.assert_allclose(view.modes @ view.modes.T, expected, atol=1e-10)
    assert [u.name for u in view.nuisances[0]] == [
        "offset", "background", "systematic 1", "systematic 2",
    ]  # fmt: skip
    assert view.modes.shape[1] < 30


def test_a_scale_may_drift_along_the_axis() -> None:
    made = target(scale=(0.03, 0.4))
    prediction = 1 + 0.5 * np.sin(3 * R)
    (drift,) = made.unknowns.at(prediction, MODEL, is_sampled=False)
    smooth = 9e-4 * np.exp(-0.5 * ((R[:, None] - R) / 0.4) ** 2)
    expected = np.outer(prediction, prediction) * smooth
    np.testing.assert_allclose(drift.modes @ drift.modes.T, expected, atol=1e-11)
    assert (drift.name, drift.spread) == ("drift of the scale", 0.03)


def test_nuisances_are_found_again() -> None:
    made = target(scale=0, offset=0.5, background=(0.3, 0.2), uncertainty=0.01)
    shape = 0.2 * np.sin(8 * R)
    view = comparison(made, made.values - 0.4 - shape, np.zeros((len(R), 1)))
    (agreed,) = compared(view)
    offset, background = agreed.nuisances
    assert offset.value == pytest.approx(0.4, abs=2 * offset.error)
    assert background.value == pytest.approx(np.sqrt(np.mean(shape**2)), abs=2 * background.error)
    assert np.abs(view.unexplained).max() < 0.01
    assert view.misfit() < 0.3


def test_an_unknown_resolution_or_zero_is_what_it_would_do_to_the_model() -> None:
    made = target(scale=0, resolution=0.02, broadening=0.03, shift=0.01)
    broad, moved = made.unknowns.at(made.response(MODEL), MODEL, is_sampled=False)
    variance = SPREAD**2 + 0.02**2

    def peak(r: Array, v: float = variance) -> Array:
        return SPREAD / np.sqrt(v) * np.exp(-0.5 * (r - PEAK) ** 2 / v)

    expected = 0.03**2 * peak(R) * ((R - PEAK) ** 2 / variance - 1) / (2 * variance)
    np.testing.assert_allclose(broad.modes[:, 0], expected, atol=5 * SHARP)
    expected = -0.01 * peak(R) * (R - PEAK) / variance
    np.testing.assert_allclose(moved.modes[:, 0], expected, atol=5 * SHARP)
    assert (broad.name, broad.spread) == ("broadening", pytest.approx(9e-4))
    assert (moved.name, moved.spread) == ("shift", 0.01)
    # of Gaussians: rms(f1) / rms(f2) is sqrt(2 / 3) widths, rms(f2) / rms(f3) sqrt(2 / 5)
    assert moved.reach == pytest.approx(0.5 * np.sqrt(2 / 3 * variance), rel=0.1)
    assert broad.reach == pytest.approx(2 / 5 * variance, rel=0.25)


@pytest.mark.parametrize("points", ["point", "bin", np.append(R - 0.0125, R[-1] + 0.0125)])
def test_a_shift_is_the_slope_of_the_model_whatever_its_size(points: Any) -> None:
    slope = -bump(R) * (R - PEAK) / SPREAD**2
    for size in (0.001, 0.05):
        made = target(scale=0, shift=size, points=points)
        (mode,) = made.unknowns.at(np.ones(48), MODEL, is_sampled=False)
        np.testing.assert_allclose(mode.modes[:, 0] / size, slope, atol=0.035 * slope.max())


def test_the_slope_by_a_shift_is_not_that_of_a_peak_broadened_by_the_models_bins() -> None:
    coarse = RDF(1.2, 40)  # half a peak's width: lines between centres are too flat
    r = coarse.r
    made = Target(ANYWHERE, coarse, r, np.ones(40), uncertainty=0.02, scale=0, shift=1.0,
                  as_it_is=True)  # fmt: skip
    (mode,) = made.unknowns.at(np.ones(40), 1 + bump(r), is_sampled=False)
    slope = -bump(r) * (r - PEAK) / SPREAD**2
    np.testing.assert_allclose(mode.modes[:, 0], slope, atol=0.01 * slope.max())


@pytest.mark.parametrize("by", [-0.004, 0.004])
def test_a_shift_and_a_broadening_are_found_with_their_sign(by: float) -> None:
    made = target(scale=0, shift=0.01)
    view = seen(made, MODEL, 1 + bump(R + by))
    (shift,) = compared(view)[0].nuisances
    assert shift.value == pytest.approx(by, rel=0.03)
    assert compared(view)[0].is_sound
    width = np.sqrt(SPREAD**2 + 0.02**2)
    broad = 1 + SPREAD / width * np.exp(-0.5 * ((R - PEAK) / width) ** 2)
    (found,) = compared(seen(target(scale=0, broadening=0.02), MODEL, broad))[0].nuisances
    assert found.value == pytest.approx(0.02**2, rel=0.2)


def seen(goal: Target, model: Array, values: Array) -> Comparison:
    """A target of these values, known well, beside a model."""
    prediction = goal.response(model)
    made = goal.unknowns.at(prediction, model, is_sampled=False)
    goal.values = values
    noise = LowRank.made(np.zeros(len(R))), LowRank.made(np.full(len(R), 1e-6))
    return Comparison([goal], prediction, np.zeros((len(R), 1)), *noise, 1e3, None, [made])


def test_what_is_further_off_than_was_thought_possible_is_told() -> None:
    far, near = 1 + bump(R + 0.012), 1 + bump(R + 0.004)
    for shift, values, told in ((0.004, far, True), (0.01, far, False), (0.004, near, False)):
        (agreed,) = compared(seen(target(scale=0, shift=shift), MODEL, values))
        assert ("its shift is further off than was thought possible" in str(agreed)) is told
        assert not (agreed.is_sound and told)
    (agreed,) = compared(seen(target(scale=0, shift=0.1), MODEL, 1 + bump(R + 0.05)))
    assert "too large to be followed linearly: correct the axis by it" in str(agreed)
    (agreed,) = compared(seen(target(scale=0, offset=0.01), MODEL, MODEL_AT_R + 0.05))
    assert "its offset is further off" in str(agreed)
    sharp = target(scale=0, resolution=0.04, broadening=0.04)
    (agreed,) = compared(seen(sharp, MODEL, 1 + bump(R)))
    assert "stated too broad" in str(agreed)
    wide = target(scale=0, broadening=0.01)
    width = np.hypot(SPREAD, 0.03)
    (agreed,) = compared(
        seen(wide, MODEL, 1 + SPREAD / width * bump(PEAK + (R - PEAK) * SPREAD / width))
    )
    assert "its broadening is further off" in str(agreed)
    assert "give it as resolution" in str(agreed)


def test_the_scale_of_a_digitised_curve_is_known_to_a_per_cent_unless_said() -> None:
    def modes(goal: Target, is_sampled: bool = False) -> list[tuple[str, float]]:
        return [(u.name, u.spread) for u in goal.unknowns.at(goal.values, goal.values, is_sampled)]

    assert modes(target()) == [("scale", 0.01)]
    assert modes(target(), is_sampled=True) == []
    assert modes(target(scale=0.03), is_sampled=True) == [("scale", 0.03)]
    assert modes(target(scale=0)) == []
    assert modes(target(uncertainty=None, covariance=np.eye(len(R)))) == []
    assert modes(Target(ANYWHERE, Pressure(), 1.0, uncertainty=5.0)) == []
    assert modes(Target(ANYWHERE, Pressure(), 1.0, uncertainty=5.0, offset=2.0)) == [
        ("offset", 2.0)
    ]
    assert modes(target(VACF(range(0, 41, 10)), np.arange(5) * 0.02)) == []


@pytest.mark.parametrize("kind", ["txt", "npy", "npz", "array"])
def test_a_covariance_comes_from_a_file_or_an_array(tmp_path: Path, kind: str) -> None:
    root = np.random.default_rng(4).normal(size=(len(R), len(R)))
    covariance = 1e-4 * (root @ root.T + np.eye(len(R)))
    path: Any = tmp_path / f"c.{kind}"
    if kind == "txt":
        np.savetxt(path, covariance)
    elif kind == "npy":
        np.save(path, covariance)
    elif kind == "npz":
        np.savez(path, covariance)
    else:
        path = covariance
    made = target(uncertainty=None, covariance=path, window=(0.3, 0.9))
    assert made.x is not None
    here = np.isin(R, made.x)
    assert made.covariance is not None
    np.testing.assert_allclose(made.covariance, covariance[np.ix_(here, here)], rtol=1e-14)
    np.testing.assert_allclose(made.uncertainty**2, np.diag(covariance)[here], rtol=1e-12)
    two = Target(ANYWHERE, Both(), [1.0, 2.0], covariance=[[1.0, 0.5], [0.5, 2.0]])
    np.testing.assert_array_equal(two.covariance, [[1.0, 0.5], [0.5, 2.0]])


class Both(Pressure):
    n_values = 2


SHORT = np.random.default_rng(6).normal(size=(48, 20))  # fewer causes than points
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "resolution of text": ({"resolution": "nowhere.txt"}, "nowhere.txt: cannot be read"),
    "negative resolution": ({"resolution": -0.1}, "resolution: got -0.1, expected a number from"),
    "broad": ({"resolution": 1.0}, "resolution: got 1.0, expected a number .*a quarter of the"),
    "NaN": ({"resolution": np.nan}, "resolution: expected finite numbers"),
    "too few": ({"resolution": [0.1, 0.2]}, "resolution: expected one row for each of the 48"),
    "matrix": ({"resolution": np.ones((48, 7))}, "resolution: expected a matrix with 240 columns"),
    "smear": ({"smear": "both"}, "smear: expected 'density' or 'counts', got 'both'"),
    "points": ({"points": "bins"}, "points: expected 'point' or 'bin', got 'bins'"),
    "edges": ({"points": [0.1, 0.2, 0.3]}, r"points: expected \(low, high\) or 49 edges for 48"),
    "falling": ({"points": (1.2, 0.0)}, "points: expected rising edges from 0 on"),
    "elsewhere": ({"points": (0.3, 1.2)}, "points: expected edges with each point in its bin"),
    "shells": ({"shells": "upper"}, "shells: expected 'exact' or 'centre' or 'lower'"),
    "empty shell": ({"shells": "lower"}, "shells: expected volumes above zero"),
    "norm": ({"normalisation": "one"}, "normalisation: expected 'ideal gas' or 'unit integral'"),
    "integral": ({"normalisation": -1.0}, "normalisation: got -1.0"),
    "scale": ({"scale": 1.5}, "scale: got 1.5, expected a number from 0 to 1; a relative"),
    "drift": ({"scale": (0.1, 0.0)}, "scale: correlation_length: got 0.0"),
    "smears": ({"smear": "counts"}, "smear: got 'counts' and nothing that smears"),
    "shift": ({"shift": 5.0}, "shift: got 5.0, expected .*less than the axis is long"),
    "wide": ({"broadening": 0.5}, "broadening: got 0.5, expected .*a quarter of the axis at most"),
    "drifts": ({"scale": (5.0, 0.2)}, "scale: amplitude: got 5.0, expected .*a relative"),
    "amplitudes": ({"background": ([0.1], 0.2)}, r"background: expected one number, got an array"),
    **{
        f"array of {name}": ({name: np.ones(2)}, f"{name}: .*(one|a) number")
        for name in ("offset", "shift", "broadening", "scale")
    },
    "words": ({"shift": "far"}, "shift: "),
    "offset": ({"offset": -1.0}, "offset: got -1.0"),
    "background": ({"background": 0.1}, r"background: expected \(amplitude, length\), got 0.1"),
    "no length": ({"background": (0.1, 0.0)}, "background: correlation_length: got 0.0"),
    "systematic": ({"systematic": [0.1]}, "systematic: expected one row for each of the 48"),
    "shape": ({"covariance": np.eye(3)}, r"covariance: expected a matrix \(48, 48\) for 48"),
    "asymmetric": ({"covariance": np.tri(48)}, "covariance: expected a symmetric matrix"),
    "rank one": ({"covariance": np.full((48, 48), 1e-4)}, "covariance: is singular: .*systematic"),
    "few rows": ({"covariance": SHORT @ SHORT.T}, "covariance: is singular"),
    "negative": ({"covariance": 1 - np.eye(48)}, "covariance: got an eigenvalue of -1, expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_its_name(case: str) -> None:
    options, words = REFUSED[case]
    error = {} if "covariance" in options else {"uncertainty": 0.02}
    with pytest.raises(TargetError, match=f"^{words}") as caught:
        Target(ANYWHERE, G, R, np.ones(48), as_it_is=True, **error, **options)
    assert "\n" not in str(caught.value)


def test_an_error_and_a_covariance_are_one_too_many() -> None:
    with pytest.raises(TargetError, match="covariance: got an uncertainty as well"):
        target(covariance=np.eye(48))
    with pytest.raises(TargetError, match="points: only a curve has one, got 'bin'"):
        Target(ANYWHERE, Pressure(), 1.0, uncertainty=5.0, points="bin")


@pytest.mark.parametrize(
    "name, meant", [("resolutoin", "resolution"), ("uncertanty", "uncertainty")]
)
def test_an_unknown_keyword_is_named_with_the_one_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(TargetError, match=f"^{name}: a target has no .*did you mean {meant}\\?$"):
        target(**{name: 0.1})
    with pytest.raises(TargetError, match=r"^zzz: a target has no .*expected one of resolution, "):
        target(zzz=0.1)


BAD_FILES = {
    "ragged.txt": (b"1 2 3\n4 5 6\n7 8\n", "got 2 numbers, expected 3 as on line 1"),
    "hole.txt": (b"1 2\nnan 3\n", "got nan in row 2, expected finite numbers"),
    "words.txt": (b"some words\n", "holds 0 tables of numbers, expected one"),
    "text.npy": (b"no array at all", "is no array that NumPy saved"),
    "text.npz": (b"no archive at all", "is no array that NumPy saved"),
    "empty.txt": (b"", "is empty"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_matrix_is_refused(tmp_path: Path, name: str) -> None:
    content, words = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TargetError, match=f"{name}.*{words}"):
        target(uncertainty=None, covariance=tmp_path / name)


def test_pickles_and_several_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([print, {}]), allow_pickle=True)
    with pytest.raises(TargetError, match="holds pickled objects"):
        target(systematic=tmp_path / "p.npy")
    np.savez(tmp_path / "two.npz", np.eye(2), np.eye(3))
    with pytest.raises(TargetError, match="holds 2 arrays, expected one"):
        target(systematic=tmp_path / "two.npz")


def test_all_of_it_belongs_to_the_identity_of_a_target(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "s.txt", np.full(48, 0.1))
    options: list[dict[str, Any]] = [
        {},
        {"resolution": 0.03},
        {"resolution": 0.03, "smear": "counts"},
        {"points": "bin"},
        {"shells": "centre"},
        {"normalisation": "unit integral"},
        {"scale": 0.02},
        {"scale": (0.02, 0.4)},
        {"offset": 0.1},
        {"background": (0.1, 0.2)},
        {"broadening": 0.1},
        {"shift": 0.1},
        {"systematic": tmp_path / "s.txt"},
    ]
    found = [target(**each).identity() for each in options]
    assert all(a != b for k, a in enumerate(found) for b in found[:k])
    same = target(resolution=0.3 * unit.angstrom).identity()
    assert same["measurement"]["resolution"] == pytest.approx(0.03)
    assert target(systematic=np.full(48, 0.1)).identity() == found[-1]


def test_relative_entropy_takes_no_curve_that_the_instrument_has_changed() -> None:
    pair = SimpleNamespace(basis=SimpleNamespace(cutoff=1.0))
    _check_reach(target(scale=0.1), pair)
    for options in ({"resolution": 0.02}, {"points": "bin"}, {"shells": np.linspace(0, 1.2, 49)}):
        with pytest.raises(TargetError, match=r"relative entropy takes a g\(r\) as it is"):
            _check_reach(target(**options), pair)


# Whether a target is reached -------------------------------------------------------------------


def test_residuals_of_a_fit_have_the_chi_squared_that_is_expected() -> None:
    random = np.random.default_rng(6)
    slopes, goal = shapes(R), target(scale=0.01, uncertainty=0.02)
    found = []
    for _ in range(400):
        truth = np.ones(len(R))
        y = truth * (1 + 0.01 * random.normal()) + 0.02 * random.normal(size=len(R))
        goal.values = y
        view = comparison(goal, truth, slopes)
        covariance = np.linalg.inv(slopes.T @ (view.precision @ slopes))
        c = -covariance @ (slopes.T @ (view.precision @ view.residual))
        view = comparison(goal, truth, slopes)
        moved = Comparison(
            view.targets, truth + slopes @ c, slopes, view.own_noise, view.target_noise, 1e3,
            None, view.nuisances,
        )  # fmt: skip
        (agreed,) = compared(moved, Sensitivity(slopes, covariance))
        assert agreed.expected == pytest.approx(len(R) - 3)
        found.append(agreed.p_value)
    low = np.mean(np.array(found)[:, None] < [0.05, 0.5, 0.95], axis=0)
    errors = np.sqrt(np.array([0.05, 0.5, 0.95]) * [0.95, 0.5, 0.05] / 400)
    assert np.all(np.abs(low - [0.05, 0.5, 0.95]) < 3.5 * errors)


def test_a_covariance_that_is_too_large_hides_no_target_that_is_missed() -> None:
    goal = target(scale=0)
    view = comparison(goal, np.where(R > 0.6, 1.06, 0.94), shapes(R))
    for size in (0.0, 1.0, 1e6):
        (agreed,) = compared(view, Sensitivity(shapes(R), size * np.eye(3)))
        assert not agreed.is_reached
        assert 24 <= agreed.expected <= 48 < agreed.chi_squared


def test_a_target_out_of_reach_is_said_so_and_no_other() -> None:
    scalar = Target(ANYWHERE, Pressure(), 1.0, uncertainty=50.0)
    goals = [target(scale=0), scalar]
    prediction = np.append(np.ones(48) + 0.01 * np.cos(40 * R), 1.0 - 300.0)
    error = np.concatenate([t.uncertainty for t in goals])
    noise = LowRank.made(0 * error), LowRank.made(error**2)
    first, second = compared(Comparison(goals, prediction, np.zeros((49, 0)), *noise, 1e3))
    assert first.is_reached and not second.is_reached
    assert second.chi_squared == pytest.approx(36) and second.expected == 1
    assert str(second).startswith("Pressure is not reached within its errors: chi^2 36.0, expected")
    assert str(first) == "g(r) is reached within its errors"


def test_the_curve_keeps_its_own_covariance() -> None:
    covariance = 1e-4 * np.eye(48)
    made = Target(ANYWHERE, G, Curve(R, np.ones(48), None, covariance), as_it_is=True)
    np.testing.assert_array_equal(made.covariance, covariance)
    assert made.unknowns.at(made.values, MODEL, is_sampled=False) == []
