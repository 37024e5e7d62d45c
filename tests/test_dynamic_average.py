"""Averages over segments: total derivatives against what is known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
import pytest
import torch
from liquids import SIGMA, lennard_jones, simulation
from numpy.typing import NDArray
from oscillators import FREQUENCY, KELVIN, STIFFNESS, exact_correlations, oscillators
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.engine.segments import (
    Derivative,
    DynamicAverage,
    Scheme,
    dynamic_average,
    langevin,
    langevin_middle,
    velocity_verlet,
)
from openmm_diffsim.observables import Segment

Array = NDArray[np.float64]

PERIOD = 2 * np.pi / FREQUENCY  # ps
STEPS = 60
LAGS = np.array([0, 15, 35, 60])
DT = 0.9 * PERIOD / STEPS
FRICTION = 1.5  # 1/ps
SCHEMES = {
    "velocity Verlet": velocity_verlet(DT),
    "LangevinMiddle": langevin_middle(DT, KELVIN, FRICTION),
    "Langevin": langevin(DT, KELVIN, FRICTION),
}
CASES = [
    ("velocity Verlet", "pathwise"),
    ("LangevinMiddle", "pathwise"),
    ("LangevinMiddle", "score"),
    ("LangevinMiddle", "combined"),
    ("Langevin", "score"),
]
N, FRAMES = 15, 300  # oscillators, frames


def position_correlation(anchors: Array, scheme: Scheme, **options: Any) -> diffsim.SegmentFunction:
    """<x(0).x(t)> from the anchors."""
    origin = torch.from_numpy(anchors)

    def measure(segment: Segment) -> Tensor:
        moved = segment.positions[..., : len(anchors), :] - origin
        return (moved[0] * moved[LAGS]).sum(dim=-1).mean(dim=-1)

    return diffsim.SegmentFunction(
        measure, STEPS, n_values=len(LAGS), reach=LAGS, integrator=scheme, **options
    )


def averages(name: str, estimator: str, seed: int = 1) -> tuple[DynamicAverage, DynamicAverage]:
    """Of the autocorrelation of positions, and of velocities."""
    system = oscillators(N)
    scheme = SCHEMES[name]
    x = position_correlation(system.anchors, scheme, estimator=estimator)
    v = diffsim.VACF(LAGS, atoms=system.atoms, integrator=scheme, estimator=estimator)
    samples = system.sample([x, v], FRAMES, seed)
    return dynamic_average(x, samples), dynamic_average(v, samples)


def deviations(found: Array, error: Array, exact: Array) -> Array:
    """In standard errors; what is exact without any error has to be zero to rounding."""
    scale = np.maximum(error, 1e-9 * np.abs(exact).max())
    return np.abs(found - exact) / scale


@pytest.mark.parametrize(("name", "estimator"), CASES)
def test_harmonic_oscillators(name: str, estimator: str) -> None:
    """Both correlation functions and both total derivatives, within 3 standard errors.

    4500 oscillators of three coordinates; errors of the derivative are up to a sixth of the
    largest, and with the score four times that.
    """
    position, velocity = averages(name, estimator)
    c_x, c_v, dc_x, dc_v = exact_correlations(SCHEMES[name], LAGS)
    for average, c, dc in ((position, c_x, dc_x), (velocity, c_v, dc_v)):
        assert deviations(average.value, average.standard_error, c).max() < 3
        total = average.total
        assert deviations(total.value[:, 0], total.standard_error[:, 0], dc).max() < 3
        most = 0.6 if estimator == "score" else 0.18
        assert np.all(total.standard_error[:, 0] < most * np.abs(dc).max())


def test_without_the_ensemble_term_it_is_wrong() -> None:
    """The classic mistake: how the starting points are distributed depends on the force, too."""
    position, velocity = averages("velocity Verlet", "pathwise")
    _, _, dc_x, dc_v = exact_correlations(SCHEMES["velocity Verlet"], LAGS)
    path = position.path
    assert deviations(path.value[:, 0], path.standard_error[:, 0], dc_x).max() > 10
    # For velocities it happens to be zero.
    path = velocity.path
    assert deviations(path.value[:, 0], path.standard_error[:, 0], dc_v).max() < 3


def test_the_errors_cover() -> None:
    """In 200 short runs, the 95 % interval contains the truth between 90 and 99.5 % of the time.

    Of the value, both parts and their sum, for the position correlation of eight oscillators, from
    frames of MD. The ensemble term is known by itself: <x(0).x(t)> is proportional to the variance
    of x(0).
    """
    lags = np.array([4, 9])
    system = oscillators(8, integrator=openmm.LangevinMiddleIntegrator(KELVIN, 4.0, DT))
    scheme = langevin_middle(DT, KELVIN, 4.0)
    origin = torch.from_numpy(system.anchors)

    def measure(segment: Segment) -> Tensor:
        moved = segment.positions[:, : len(origin), :] - origin
        return (moved[0] * moved[lags]).sum(dim=-1).mean(dim=-1)

    observable = diffsim.SegmentFunction(
        measure, 9, n_values=2, reach=lags, integrator=scheme, estimator="pathwise",
        gradient_every=4,
    )  # fmt: skip
    c, _, dc, _ = exact_correlations(scheme, lags)
    ensemble = -c / STIFFNESS
    inside = []
    for repeat in range(200):
        samples = system.simulate([observable], frames=100, every=20, seed=repeat + 1)
        average = dynamic_average(observable, samples)
        inside.append(
            [
                np.abs(average.value - c) < 1.96 * average.standard_error,
                contains(average.path, (dc - ensemble)[:, None])[:, 0],
                contains(average.ensemble, ensemble[:, None])[:, 0],
                contains(average.total, dc[:, None])[:, 0],
            ]
        )
    coverage = np.mean(inside, axis=0)
    assert np.all((coverage > 0.90) & (coverage < 0.995)), coverage


def contains(found: Derivative, exact: Array) -> NDArray[np.bool_]:
    """Is the truth in the 95 % interval?"""
    low, high = found.interval()
    return (low < exact) & (exact < high)


def test_smooth_rdf_along_segments_agrees_with_reweighting() -> None:
    """The seeds' way and ours: the same derivative of g(r), where both are right.

    g(r) is stationary, so its total derivative along a segment is that of the covariance formula;
    within 3.5 standard errors of the difference. What the segment contributes is not small.
    """
    pair = lennard_jones()
    point = diffsim.StatePoint(simulation(pair, n=64, temperature=1.5, seed=3), pair)
    reach, bins = 2.0 * SIGMA, 12
    hard = diffsim.RDF(reach, bins)
    smooth = diffsim.SmoothRDF(
        reach, bins, 20, every=20, width=0.02 * SIGMA, estimator="pathwise", gradient_every=4
    )
    samples = point.sample(250 * 30, 30, [hard, smooth], equilibration=2000)
    average = point.dynamic_average(smooth, samples)
    assert np.abs(average.path.value).max() > 3 * np.abs(average.total.standard_error).max()
    seen = hard.r > 0.95 * SIGMA
    for k in np.flatnonzero(seen):
        gradient, error = samples.gradient(lambda s, k=k: s.average(hard)[k])
        own = average.total
        combined = np.hypot(error, own.standard_error[k])
        assert np.all(np.abs(own.value[k] - gradient) < 3.5 * combined)
