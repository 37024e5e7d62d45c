"""What a fit leaves behind of its targets: tables, scalars in their units, figures."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from openmm_diffsim import (
    MSD,
    RDF,
    VACF,
    AngleDistribution,
    Axis,
    Curve,
    Diffusion,
    IncoherentScattering,
    Pressure,
    Target,
)
from openmm_diffsim.refinement import Comparison, TargetVerdict, Verdict
from openmm_diffsim.refinement.low_rank import LowRank
from openmm_diffsim.report import figures, tables
from openmm_diffsim.report.page.text import with_error

POINT: Any = SimpleNamespace(check_observable=lambda o: None, timestep=0.002, place=lambda: None)
LAGS = [0, 20, 50, 100]
T = np.array(LAGS) * 0.002
G = RDF(0.9, 45)
ANGLES = AngleDistribution(0.35, 30)


def targets() -> list[Target]:
    g = np.where(G.r < 0.3, 0.0, 1 + np.exp(-(((G.r - 0.37) / 0.05) ** 2)))
    return [
        Target(POINT, VACF(LAGS), T, 0.05 * np.exp(-T), uncertainty=1e-3),
        Target(POINT, Diffusion(50), 2.4e-3, uncertainty=1e-4),
        Target(POINT, G, G.r, g, uncertainty=0.02),
        Target(POINT, MSD(LAGS), T, 0.1 * T**2, uncertainty=1e-4),
        Target(POINT, Pressure(), 945.0, uncertainty=4.1),
        Target(POINT, VACF(LAGS), T, 0.04 * np.exp(-T), uncertainty=2e-3),
        Target(POINT, ANGLES, ANGLES.theta, np.sin(ANGLES.theta) / 2, uncertainty=0.03),
    ]


@pytest.fixture
def fit() -> Any:
    """A fit whose model is off by half of every error, with errors of twice the targets'."""
    goals = targets()
    values = np.concatenate([t.values for t in goals])
    error = np.concatenate([t.uncertainty for t in goals])
    n = len(values)
    covariances = LowRank.made(4 * error**2), LowRank.made(error**2)
    view = Comparison(goals, values + 0.5 * error, np.zeros((n, 1)), *covariances, 100.0)
    return SimpleNamespace(comparisons=lambda: [view], states=[None])


def test_every_target_is_held_against_its_own_points(fit: Any) -> None:
    found = tables.compare(fit)
    goals = targets()
    over_time = [c for c in found.curves if c.axis.name == "t"]
    assert [c.observable.label for c in over_time] == ["VACF", "MSD", "VACF"]
    assert [c.observable.unit for c in over_time] == ["nm^2/ps^2", "nm^2", "nm^2/ps^2"]
    for curve, goal in zip(found.curves, [goals[i] for i in (0, 2, 3, 5, 6)], strict=True):
        assert goal.x is not None
        np.testing.assert_array_equal(curve.target.x, goal.x)
        np.testing.assert_array_equal(curve.model.x, goal.x)
        np.testing.assert_array_equal(curve.target.y, goal.values)
        np.testing.assert_allclose(curve.model.y, goal.values + 0.5 * goal.uncertainty)
        np.testing.assert_allclose(curve.model.spread, 2 * goal.uncertainty)
    assert [(s["observable"], s["unit"]) for s in found.scalars] == [
        ("diffusion", "nm^2/ps"),
        ("pressure", "bar"),
    ]
    assert found.scalars[0]["model"] == pytest.approx(2.45e-3)
    assert found.scalars[1]["standard_error"] == pytest.approx(8.2)


def test_curves_are_written_one_file_each(fit: Any) -> None:
    files = tables.curve_files(tables.compare(fit).curves)
    names = sorted(files)
    assert names == ["angles_0.csv", "msd_0.csv", "rdf_0.csv", "vacf_0.csv", "vacf_1.csv"]
    for name, goal in (("vacf_0", 0), ("vacf_1", 5), ("msd_0", 3), ("angles_0", 6)):
        text = files[f"{name}.csv"].decode()
        columns = "theta_rad,p_target,p_model" if goal == 6 else "t_ps,target,model"
        assert text.startswith(f"{columns},standard_error\n")
        x, target, model, error = np.loadtxt(text.splitlines(), delimiter=",", skiprows=1).T
        expected = targets()[goal]
        np.testing.assert_array_equal(x, expected.x)
        np.testing.assert_array_equal(target, expected.values)
        np.testing.assert_allclose(model, target + 0.5 * expected.uncertainty)
        np.testing.assert_allclose(error, 2 * expected.uncertainty)


def test_the_title_has_scalars_in_their_units_and_as_many_digits_as_they_are_worth(
    fit: Any,
) -> None:
    final = {
        "md_steps": 100,
        "misfit": 0.5,
        "rdf_rms": 0.0123,
        "scalars": tables.compare(fit).scalars,
        "agreement": [],
    }
    nuisance = {"name": "scale", "value": 0.973, "error": 0.004, "found": True}
    missed = {"observable": "VACF", "reached": False, "nuisances": []}
    scaled = {"observable": "g(r)", "reached": True, "nuisances": [nuisance]}
    assert tables._title(final | {"agreement": [missed, scaled]}).endswith(
        "; scale of g(r) 0.9730 ± 0.0040"
    )
    assert tables._title(final) == (
        "100 MD steps, misfit 0.50, rms of g(r) 0.0123; "
        "diffusion 0.00245 ± 0.00020 nm^2/ps (target 0.00240 ± 0.00010); "
        "pressure 947.0 ± 8.2 bar (target 945.0 ± 4.1)"
    )
    nothing = final | {"rdf_rms": float("nan"), "scalars": []}
    assert tables._title(nothing) == "100 MD steps, misfit 0.50"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (944.93, 57.3, "945 ± 57"),
        (0.0024512, 0.00113, "0.0025 ± 0.0011"),
        (-3.0, 0.5, "−3.00 ± 0.50"),
        (1.0, np.inf, "1"),
        (1.0, 0.0, "1"),
    ],
)
def test_a_number_is_written_with_its_error(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


# Figures ----------------------------------------------------------------------------------------

ROUNDS = [{"misfit": 3.0}, {"misfit": 1.0}]
R = np.linspace(0.28, 0.85, 200)
U = 4 * ((0.34 / R) ** 12 - (0.34 / R) ** 6)


def drawn(found: tables.Comparisons, rdfs: bool, over_time: bool, angles: bool = False) -> Any:
    wanted = {"r": rdfs, "theta": angles, "t": over_time}
    curves = [c for c in found.curves if wanted[c.axis.name]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.fit_figure(R, U, 0.05 + 0 * U, curves, ROUNDS)
        figure.canvas.draw()
    return figure


POTENTIAL = [("r / nm", "u(r) / kJ mol$^{-1}$"), ("round", "misfit")]
OF_RDF = [("", "g(r)"), ("r / nm", "model - target")]
OF_ANGLES = [("", "P(theta) / rad$^{-1}$"), ("theta / rad", "model - target")]
OF_VACF = [("", "VACF / nm$^{2}$ ps$^{-2}$"), ("t / ps", "model - target")]
OF_MSD = [("", "MSD / nm$^{2}$"), ("t / ps", "model - target")]


@pytest.mark.parametrize(
    ("rdfs", "angles", "over_time", "expected"),
    [
        (True, False, False, [*POTENTIAL, *OF_RDF]),
        (True, False, True, [*POTENTIAL, *OF_RDF, *OF_VACF, *OF_MSD]),
        (False, False, True, [*POTENTIAL, *OF_VACF, *OF_MSD]),
        (True, True, True, [*POTENTIAL, *OF_RDF, *OF_ANGLES, *OF_VACF, *OF_MSD]),
        (False, True, False, [*POTENTIAL, *OF_ANGLES]),
    ],
)
def test_each_kind_of_curve_has_its_panels(
    fit: Any, rdfs: bool, angles: bool, over_time: bool, expected: list[tuple[str, str]]
) -> None:
    figure = drawn(tables.compare(fit), rdfs, over_time, angles)
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == expected
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(box.width > 0.1 and box.height > 0.1 for box in boxes)
    assert min(box.x0 for box in boxes) > 0 and max(box.x1 for box in boxes) <= 1


def test_targets_of_one_observable_share_a_panel_and_are_told_apart(fit: Any) -> None:
    figure = drawn(tables.compare(fit), True, True)
    legend = figure.axes[4].get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    assert sorted(labels) == ["model 0", "model 1", "target 0", "target 1"]
    colors = [line.get_color() for line in figure.axes[4].lines if line.get_linestyle() == "-"]
    assert len(set(colors[:2])) == 2
    assert figure.axes[4].get_xlim() == pytest.approx((0.0, 0.2))


def test_the_well_is_in_sight_without_a_g_of_r(fit: Any) -> None:
    low, high = drawn(tables.compare(fit), False, True).axes[0].get_ylim()
    assert low < U.min() and high > 0


@pytest.mark.parametrize("contact", [0.4, 0.0])
@pytest.mark.parametrize("last", [1.01, 1.3])
def test_a_repulsive_potential_is_drawn_where_its_g_has_no_peak(
    contact: float, last: float
) -> None:
    """A dilute fluid's g(r) rises to 1; its highest point may be the last."""
    r = np.linspace(0.005, 1.4, 100)
    g = np.where(r < contact, 0.0, 1 - 0.6 * np.exp(-(r - contact) / 0.2))
    g[-1] = last
    curve = Curve(r, g, np.full(100, 0.02))
    assert (G.nearest_distance(curve) is None) == (last < 1.1)
    comparison = figures.Comparison(G, Axis("r", "length", r), curve, curve)
    points = np.linspace(0.1, 0.8, 60)
    u = 5 * np.exp(-points / 0.2)
    figure = figures.fit_figure(points, u, 0.1 * u, [comparison], [{"misfit": 2.0}])
    low, high = figure.axes[0].get_ylim()
    assert low < 0 < np.interp(0.45, points, u) < high


def test_what_the_verdict_says_stands_in_the_title_once() -> None:
    target = TargetVerdict("g(r)", 0.5, 1.0, 0.5, 1.0, 0.1, 1.0)
    missed, other = "g(r) is not reached within its errors: chi^2 90", "u(r) is not determined"
    verdict = Verdict((target,), 0.5, missed=(missed,))
    assert tables._notes(verdict, [other, missed]) == [f"not converged: {missed}", other]
    assert tables._notes(Verdict((target,), 0.5), [other]) == [other]


def test_a_unit_without_a_name_leaves_the_name_of_the_observable() -> None:
    curve = Curve(T, T, T)
    comparison = figures.Comparison(
        IncoherentScattering(10.0, LAGS), Axis("t", "time", T), curve, curve
    )
    figure = drawn(tables.Comparisons([comparison], []), False, True)
    assert figure.axes[2].get_ylabel() == "IncoherentScattering"
