"""A target is what was measured, compared where it was measured; anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

import openmm_diffsim as diffsim
from openmm_diffsim import MSD, RDF, VACF, AngleDistribution, Diffusion, Pressure, Target
from openmm_diffsim.curve import Axis, Curve, interpolation_matrix
from openmm_diffsim.engine.segments import velocity_verlet
from openmm_diffsim.errors import DiffsimError, TargetError, UnitError
from openmm_diffsim.observables import Observable, Place
from openmm_diffsim.refinement.target import filled_errors

RDF_OBSERVABLE = RDF(1.0, 50)  # bins of 0.02 nm, centres 0.01 .. 0.99
# All that a target asks of its state point; nothing is known of its density.
ANYWHERE: Any = SimpleNamespace(check_observable=lambda o: None, timestep=0.002, place=lambda: None)


def curve(r: np.ndarray) -> np.ndarray:
    """Something like the g(r) of a liquid: 0, a peak near 0.36 nm, then 1."""
    return np.where(r < 0.3, 0.0, 1 + 1.5 * np.exp(-(((r - 0.37) / 0.05) ** 2)))


R = np.arange(0.05, 0.95, 0.03)
G = curve(R)


def target(*data: Any, **options: Any) -> Target:
    options.setdefault("uncertainty", 0.02)
    return Target(ANYWHERE, RDF_OBSERVABLE, *(data or (R, G)), **options)


# From arrays ------------------------------------------------------------------------------------


def test_a_regular_table_is_kept_as_it_is() -> None:
    made = target(R, G, uncertainty=0.02)
    np.testing.assert_array_equal(made.x, R)
    np.testing.assert_array_equal(made.values, G)
    np.testing.assert_array_equal(made.uncertainty, np.full(len(R), 0.02))
    assert made.response.matrix.shape == (len(R), 50)
    assert made.weight == 1.0


def test_order_holes_and_irregular_steps_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    r = np.sort(rng.uniform(0.05, 0.95, 40))
    g, error = curve(r), rng.uniform(0.01, 0.03, 40)
    messy = rng.permutation(50)
    made = target(
        np.concatenate([r, np.linspace(0.96, 1.2, 10)])[messy],
        np.concatenate([g, np.full(10, np.nan)])[messy],
        uncertainty=np.concatenate([error, np.full(10, np.nan)])[messy],
    )
    np.testing.assert_array_equal(made.x, r)
    np.testing.assert_array_equal(made.values, g)
    np.testing.assert_array_equal(made.uncertainty, error)


def test_points_outside_the_bins_of_the_observable_do_not_count() -> None:
    r = np.linspace(0.0, 2.0, 201)
    made = target(r, curve(r))
    assert made.x is not None
    assert made.x[0] == pytest.approx(0.01) and made.x[-1] == pytest.approx(0.99)
    assert len(made.x) == 99


def test_a_window_keeps_only_the_points_inside() -> None:
    made = target(R, G, window=(0.3, 0.6))
    inside = (R >= 0.3) & (R <= 0.6)
    np.testing.assert_array_equal(made.x, R[inside])
    np.testing.assert_array_equal(made.values, G[inside])
    assert made.response.matrix.shape == (inside.sum(), 50)


def test_quantities_are_converted() -> None:
    in_angstrom = target(unit.Quantity(10 * R, unit.angstrom), G)
    np.testing.assert_allclose(in_angstrom.x, R, rtol=1e-12)
    made = Target(ANYWHERE, Pressure(), 2 * unit.atmosphere, uncertainty=0.1 * unit.atmosphere)
    np.testing.assert_allclose(made.values, [2 * 1.01325])
    np.testing.assert_allclose(made.uncertainty, [0.101325])


def test_a_bin_without_counts_gets_the_median_error_of_the_others() -> None:
    error = np.where(G == 0, 0.0, np.linspace(0.01, 0.03, len(R)))
    made = target(uncertainty=error)
    np.testing.assert_array_equal(made.uncertainty[G > 0], error[G > 0])
    empty = (G == 0) & (R > 0.1)
    np.testing.assert_array_equal(made.uncertainty[empty], np.median(error[G > 0]))
    assert empty.sum() > 3  # the table does have such bins


def poisson(g: np.ndarray, r: np.ndarray, ideal: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over n histograms, and their errors; an ideal gas would have ``ideal`` r^2 counts."""
    expected = ideal * r**2
    draws = np.random.default_rng(5).poisson(expected * g, size=(n, len(r))) / expected
    return draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(n)


def test_an_empty_bin_is_known_to_about_one_count() -> None:
    r = np.arange(0.005, 1.0, 0.01)
    g, error = poisson(np.where(r < 0.1, 0.3, 1.0), r, 50.0, 50)
    made = Target(ANYWHERE, RDF(1.0, 100), r, g, uncertainty=error, as_it_is=True)
    one = 1 / (50 * 50 * r**2)
    empty = (g == 0) & (one > 2 * np.median(error))
    assert empty.sum() > 1
    np.testing.assert_allclose(made.uncertainty[empty][1:], one[empty][1:], rtol=0.25)
    assert np.all(made.uncertainty[g == 0] > 0.3 / 3)  # 0 is within three errors of the truth
    flat = filled_errors(Curve(r, g, error), 0.0)  # of angles, whose bins are alike
    assert np.ptp(flat[g == 0]) < 1e-12


def test_a_covariance_is_filled_where_a_bin_is_empty() -> None:
    error = np.where(G == 0, 0.0, 0.02)
    made = target(Curve(R, G, error, np.diag(error**2)), uncertainty=None)
    assert made.curve is not None and made.curve.covariance is not None
    np.testing.assert_allclose(np.diag(made.curve.covariance), made.uncertainty**2)
    assert made.uncertainty.min() > 0


def test_the_median_is_of_the_points_that_are_compared() -> None:
    error = np.where(R < 0.3, 0.0, np.where(R < 0.6, 0.02, 5.0))
    made = target(uncertainty=error, window=(0.1, 0.5))
    np.testing.assert_array_equal(made.uncertainty, 0.02)


def test_a_scalar_target_has_one_value_and_no_r() -> None:
    made = Target(ANYWHERE, Pressure(), 1.0, uncertainty=50.0, weight=3.0)
    assert made.x is None and made.weight == 3.0
    np.testing.assert_array_equal(made.values, [1.0])
    np.testing.assert_array_equal(made.uncertainty, [50.0])
    np.testing.assert_array_equal(made.response.matrix, [[1.0]])


def test_an_observable_of_several_values_takes_as_many() -> None:
    class Three(Observable):
        n_values = 3

    made = Target(ANYWHERE, Three(), [1.0, 2.0, 3.0], uncertainty=[0.1, 0.2, 0.3])
    np.testing.assert_array_equal(made.values, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(made.response.matrix, np.eye(3))


def test_a_curve_is_taken_as_it_is_with_its_own_errors() -> None:
    error = np.linspace(0.01, 0.03, len(R))
    measured = Curve(R, G, error, np.diag(error**2), Path("g.csv"))
    made = Target(ANYWHERE, RDF_OBSERVABLE, measured, window=(0.3, 0.6))
    inside = (R >= 0.3) & (R <= 0.6)
    assert made.curve is not None and made.curve.path == Path("g.csv")
    np.testing.assert_array_equal(made.x, R[inside])
    np.testing.assert_array_equal(made.uncertainty, error[inside])
    np.testing.assert_array_equal(made.curve.covariance, np.diag(error[inside] ** 2))
    other = Target(ANYWHERE, RDF_OBSERVABLE, measured, uncertainty=0.5)
    assert other.curve is not None and other.curve.covariance is None
    np.testing.assert_array_equal(other.uncertainty, 0.5)


def test_a_curve_without_errors_needs_an_uncertainty() -> None:
    with pytest.raises(TargetError, match="a target of RDF needs its uncertainty"):
        Target(ANYWHERE, RDF_OBSERVABLE, Curve(R, G))


def test_a_curve_of_an_observable_without_rules_is_refused() -> None:
    class Bare(Observable):
        def axis(self, timestep: float) -> Axis:
            return Axis("x", "length", np.arange(3.0))

    with pytest.raises(TargetError, match="Bare has an axis and no rules: give it CurveRules"):
        Target(ANYWHERE, Bare(), R, G, uncertainty=0.1)


IDENTITIES: dict[str, Callable[[], Target]] = {
    "itself": lambda: target(),
    "values": lambda: target(R, 1.01 * G),
    "uncertainty": lambda: target(uncertainty=0.03),
    "weight": lambda: target(weight=2.0),
    "noise": lambda: target(noise="sampled"),
    "window": lambda: target(window=(0.1, 0.8)),
    "bins": lambda: Target(ANYWHERE, RDF(1.0, 51), R, G, uncertainty=0.02),
    "atoms": lambda: Target(ANYWHERE, RDF(1.0, 50, atoms=[0, 1]), R, G, uncertainty=0.02),
    "covariance": lambda: Target(
        ANYWHERE, RDF_OBSERVABLE, Curve(R, G, np.full(30, 0.02), 4e-4 * np.eye(30))
    ),
    "segments": lambda: Target(ANYWHERE, Diffusion(50), 1.0, uncertainty=1.0),
    "longer steps": lambda: Target(
        SimpleNamespace(check_observable=lambda o: None, timestep=0.004, place=lambda: None),
        Diffusion(50),
        1.0,
        uncertainty=1.0,  # type: ignore[arg-type]
    ),
}


def test_the_identity_of_a_target_holds_all_that_it_was_made_from() -> None:
    found = {name: json.dumps(make().identity()) for name, make in IDENTITIES.items()}
    assert len(set(found.values())) == len(IDENTITIES)
    assert found == {name: json.dumps(make().identity()) for name, make in IDENTITIES.items()}


# What looks like a slip ---------------------------------------------------------------------------


def crowded(n: int = 20, molecules: int | None = None) -> Any:
    """n particles in 1 nm^3, in as many molecules."""
    where = Place(np.ones(n), np.arange(n) % (molecules or n), 1.0, 300.0)
    return SimpleNamespace(check_observable=lambda o: None, timestep=0.002, place=lambda: where)


def settled(r: np.ndarray) -> np.ndarray:
    """A g(r) that rises at 0.32 nm, with waves that die out."""
    return np.where(r < 0.32, 0.0, 1 + 1.5 * np.exp(-(r - 0.32) / 0.1) * np.cos(19 * (r - 0.35)))


PLACES = np.arange(0.01, 1.2, 0.01)
SLIPS: dict[str, tuple[np.ndarray, np.ndarray, Any, str]] = {
    "angstrom": (10 * PLACES, settled(PLACES), crowded(), "in angstrom and read as nm"),
    "nm as angstrom": (PLACES / 10, settled(PLACES), crowded(), "in nm and read as angstrom"),
    "half": (PLACES, 0.5 * settled(PLACES), crowded(), r"is 0\.5.*expected 1 within 0\.13"),
    "times 0.7": (PLACES, 0.7 * settled(PLACES), crowded(), r"is 0\.7"),
    "times 1.2": (PLACES, 1.2 * settled(PLACES), crowded(), r"is 1\.2"),
    "times 1.3": (PLACES, 1.3 * settled(PLACES), crowded(), r"is 1\.3"),
    "h": (PLACES, settled(PLACES) - 1, crowded(), r"got g = -1, expected g of about 0.*h\(r\)"),
    "h without its core": (
        PLACES[32:],
        settled(PLACES[32:]) - 0.9,
        crowded(),
        r"is 0\.09.* not h\(r\) = g\(r\) - 1",
    ),
    "a droplet": (
        PLACES,
        settled(PLACES) * (0.3 + 5 * np.exp(-PLACES / 0.6)),
        crowded(1),
        "two phases",
    ),
}


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_of_unit_or_norm_is_refused_on_every_path(case: str, tmp_path: Path) -> None:
    r, g, where, message = SLIPS[case]
    rdf = RDF(1.15, 40)
    with pytest.raises(TargetError, match=message):
        Target(where, rdf, r, g, uncertainty=0.02)
    path = write(tmp_path / "g.txt", r, g)
    with pytest.raises(TargetError, match=message) as caught:
        Target.from_file(where, rdf, path, uncertainty=0.02)
    assert caught.value.path == path
    if case != "h":
        with pytest.raises(TargetError, match=message):
            Target(where, rdf, Curve(r, g), uncertainty=0.02)


def test_who_knows_better_says_so() -> None:
    rdf, g = RDF(1.15, 40), 1.3 * settled(PLACES)
    made = Target(crowded(), rdf, PLACES, g, uncertainty=0.02, as_it_is=True)
    assert made.values.max() == g.max()


def soft(r: np.ndarray) -> np.ndarray:
    """Of particles that can be in one place."""
    return np.exp(-0.5 * np.exp(-((r / 0.5) ** 2)))


def noise(size: float) -> np.ndarray:
    return size * np.random.default_rng(7).normal(size=len(PLACES))


HONEST: dict[str, tuple[np.ndarray, np.ndarray, Any]] = {
    "settled": (PLACES, settled(PLACES), crowded()),
    "of a small box": (PLACES, 0.95 * settled(PLACES), crowded()),
    "noisy": (PLACES, settled(PLACES) + noise(0.3) * (PLACES > 0.32), crowded()),
    "short": (PLACES[:60], settled(PLACES[:60]), crowded()),
    "short, and high where it ends": (PLACES[:68], 1.2 * settled(PLACES[:68]), crowded()),
    "of a gas": (PLACES, np.where(PLACES < 0.3, 0, 1 + np.exp(-PLACES / 0.1)), crowded(1)),
    "soft": (PLACES, soft(PLACES), crowded(1)),
    "soft and noisy": (PLACES, np.maximum(soft(PLACES) + noise(0.2), 0), crowded(1)),
    "soft, without counts in the first bins": (PLACES, soft(PLACES) * (PLACES > 0.03), crowded(1)),
    "soft, not yet level": (PLACES[:55], soft(PLACES[:55]), crowded(1)),
    "of bonded sites, denser than spheres": (PLACES, settled(PLACES), crowded(100, molecules=20)),
    "of few points": (PLACES[::23], settled(PLACES[::23]), crowded()),
    "from where it rises on": (PLACES[32:], settled(PLACES[32:]), crowded()),
}


@pytest.mark.parametrize("case", HONEST)
def test_an_honest_rdf_is_taken(case: str) -> None:
    r, g, where = HONEST[case]
    Target(where, RDF(1.15, 40), r, g, uncertainty=0.05)


def test_soft_particles_in_angstrom_reach_too_far() -> None:
    with pytest.raises(TargetError, match=r"reaches to 11\.9 nm, but is compared up to 1.15 nm"):
        Target(crowded(1), RDF(1.15, 40), 10 * PLACES, soft(PLACES), uncertainty=0.02)


def test_pairs_of_two_kinds_are_held_against_the_rarer() -> None:
    few = RDF(1.15, 40, atoms=range(4), atoms2=range(4, 200))
    Target(crowded(200), few, PLACES, settled(PLACES), uncertainty=0.02)
    with pytest.raises(TargetError, match="at 196 particles per nm"):
        many = RDF(1.15, 40, atoms=range(4, 200))
        Target(crowded(200), many, PLACES, settled(PLACES), uncertainty=0.02)


def test_functions_of_time_are_held_against_equipartition_in_a_script_too() -> None:
    t, lags = np.linspace(0, 0.2, 11), [0, 50, 100]
    squared_speed = 3 * 0.0083144626 * 300  # masses are 1 amu
    Target(crowded(), VACF(lags), t, squared_speed * np.exp(-t), uncertainty=0.1)
    with pytest.raises(TargetError, match=r"got C\(0\) = 1, expected about 3RT/m = 7\.48"):
        Target(crowded(), VACF(lags), t, np.exp(-t), uncertainty=0.1)
    moved = 0.9 * squared_speed * t**2
    Target(crowded(), MSD(lags), t, moved, uncertainty=1e-4)
    with pytest.raises(TargetError, match="that nothing holds; is it in another unit"):
        Target(crowded(), MSD(lags), t, 100 * moved, uncertainty=1e-4)


# From files -------------------------------------------------------------------------------------


def write(path: Path, *columns: np.ndarray) -> Path:
    np.savetxt(path, np.stack(columns, axis=1), fmt="%.17g", header="r g error")
    return path


def test_a_file_with_an_error_column_needs_no_uncertainty(tmp_path: Path) -> None:
    error = np.linspace(0.01, 0.03, len(R))
    path = write(tmp_path / "g.txt", R, G, error)
    made = Target.from_file(ANYWHERE, RDF_OBSERVABLE, path)
    np.testing.assert_array_equal(made.x, R)
    np.testing.assert_array_equal(made.values, G)
    np.testing.assert_array_equal(made.uncertainty, error)


def test_a_file_with_zero_errors_in_the_core_is_as_good_as_the_same_arrays(tmp_path: Path) -> None:
    error = np.where(G == 0, 0.0, 0.02)
    path = write(tmp_path / "g.txt", R, G, error)
    made = Target.from_file(ANYWHERE, RDF_OBSERVABLE, path)
    np.testing.assert_array_equal(made.uncertainty, target(uncertainty=error).uncertainty)


def test_columns_and_block_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    rows = [f"{r} {0.5 * g} {g}" for r, g in zip(R, G, strict=True)]
    path.write_text("\n".join(["0.1 0 0", "0.2 0 0", "&", *rows]))
    made = Target.from_file(
        ANYWHERE, RDF_OBSERVABLE, path, uncertainty=0.02, columns=[1, 3], block=2
    )
    np.testing.assert_array_equal(made.values, G)


def test_an_uncertainty_given_replaces_the_error_column(tmp_path: Path) -> None:
    path = write(tmp_path / "g.txt", R, G, np.linspace(0.01, 0.03, len(R)))
    made = Target.from_file(ANYWHERE, RDF_OBSERVABLE, path, uncertainty=0.5)
    np.testing.assert_array_equal(made.uncertainty, 0.5)


@pytest.mark.parametrize("name", ["angstrom", "A"])
def test_a_file_in_angstrom_is_converted(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "g.txt", 10 * R, G)
    made = Target.from_file(ANYWHERE, RDF_OBSERVABLE, path, unit=name, uncertainty=0.02)
    np.testing.assert_allclose(made.x, R, rtol=1e-12)
    np.testing.assert_array_equal(made.values, G)


def test_a_file_may_be_unsorted_and_end_in_nan_and_options_are_passed_on(tmp_path: Path) -> None:
    g = np.where(R > 0.8, np.nan, G)
    order = np.random.default_rng(2).permutation(len(R))
    path = write(tmp_path / "g.txt", R[order], g[order])
    made = Target.from_file(
        ANYWHERE, RDF_OBSERVABLE, path, uncertainty=0.02, window=(0.2, 1.0), weight=2.0
    )
    expected = (R >= 0.2) & (R <= 0.8)
    np.testing.assert_array_equal(made.x, R[expected])
    np.testing.assert_array_equal(made.values, G[expected])
    assert made.weight == 2.0


def test_a_file_without_errors_needs_an_uncertainty_and_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "g.txt", R, G)
    with pytest.raises(TargetError, match=r"g\.txt.*no error column.*uncertainty=") as caught:
        Target.from_file(ANYWHERE, RDF_OBSERVABLE, path)
    assert caught.value.path == path


# Angles -----------------------------------------------------------------------------------------

ANGLES = AngleDistribution(0.35, 60)  # bins of 3 degrees


def bent(theta: np.ndarray) -> np.ndarray:
    """Something like the angles of water, 1/rad: a peak near 100 degrees, of integral 1."""
    p = np.exp(-(((theta - 1.75) / 0.4) ** 2)) + 0.3 * np.sin(theta) ** 2
    return p / (0.4 * np.pi**0.5 + 0.15 * np.pi)


THETA = np.linspace(0.0, np.pi, 46)


def angles(theta: Any = THETA, p: Any = None, **options: Any) -> Target:
    options.setdefault("uncertainty", 0.02)
    return Target(ANYWHERE, ANGLES, theta, bent(theta) if p is None else p, **options)


def test_angles_are_compared_between_the_first_and_the_last_bin() -> None:
    made = angles(np.random.default_rng(1).permutation(THETA))
    assert made.x is not None and made.axis is not None and made.axis.name == "theta"
    np.testing.assert_array_equal(made.x, THETA[1:-1])
    np.testing.assert_array_equal(made.values, bent(THETA[1:-1]))
    p = bent(ANGLES.theta)
    np.testing.assert_allclose(made.response.matrix @ p, np.interp(made.x, ANGLES.theta, p))
    np.testing.assert_allclose(made.response.matrix @ p, made.values, atol=5e-3)  # h^2 P'' / 8


def test_angles_may_be_in_degrees_and_in_a_window() -> None:
    made = angles(
        unit.Quantity(np.degrees(THETA), unit.degree),
        unit.Quantity(np.radians(bent(THETA)), unit.degree**-1),
        uncertainty=np.radians(0.01) / unit.degree,
        window=(1.0, 2.0),
    )
    inside = (THETA >= 1) & (THETA <= 2)
    np.testing.assert_allclose(made.x, THETA[inside], rtol=1e-12)
    np.testing.assert_allclose(made.values, bent(THETA[inside]), rtol=1e-12)
    np.testing.assert_allclose(made.uncertainty, 0.01)


@pytest.mark.parametrize("angle_unit", ["rad", "degree"])
def test_angles_come_from_a_file(tmp_path: Path, angle_unit: str) -> None:
    scale = 1.0 if angle_unit == "rad" else 180 / np.pi
    path = write(tmp_path / "p.txt", scale * THETA, bent(THETA) / scale)
    made = Target.from_file(ANYWHERE, ANGLES, path, unit=angle_unit, uncertainty=0.02)
    np.testing.assert_allclose(made.x, THETA[1:-1], rtol=1e-12)
    np.testing.assert_allclose(made.values, bent(THETA[1:-1]), rtol=1e-12)
    error = 0.02 + 0.01 * THETA
    path = write(tmp_path / "p.txt", scale * THETA, bent(THETA) / scale, error / scale)
    made = Target.from_file(ANYWHERE, ANGLES, path, unit=angle_unit)
    np.testing.assert_allclose(made.uncertainty, error[1:-1], rtol=1e-12)


ANGLES_REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "theta without p": (
        lambda: Target(ANYWHERE, ANGLES, THETA, uncertainty=0.1),
        r"needs theta and p, got 1",
    ),
    "degrees": (lambda: angles(np.degrees(THETA), bent(THETA)), r"up to 180 rad.*in degrees\?"),
    "divided by the sine": (
        lambda: angles(THETA[1:-1], bent(THETA[1:-1]) / np.sin(THETA[1:-1]) / 1.5),
        r"integral of P over theta is .*expected 1",
    ),
    "a window of degrees": (lambda: angles(window=(60, 120)), r"only 0 points.*rad"),
}


@pytest.mark.parametrize("case", ANGLES_REFUSED)
def test_angles_that_cannot_be_are_refused(case: str) -> None:
    make, message = ANGLES_REFUSED[case]
    with pytest.raises(TargetError, match=message):
        make()


def test_other_units_of_angles_are_refused() -> None:
    with pytest.raises(UnitError, match="angle"):
        angles(unit.Quantity(THETA, unit.nanometer), bent(THETA))
    with pytest.raises(UnitError, match="angular density"):
        angles(uncertainty=1 * unit.degree)


def test_the_noise_of_angles_hangs_together_like_that_of_an_rdf() -> None:
    fine = ANGLES.theta
    one_frame = np.maximum(bent(fine), 1e-3)  # variance of a count: Poisson
    error = np.sqrt(one_frame / 400)
    for noise, expected in (("auto", 1 / 400), ("sampled", 1 / 400), ("independent", None)):
        made = angles(fine, uncertainty=error, noise=noise)
        found = made.frames_share(made.response.matrix @ one_frame)
        assert found == (None if expected is None else pytest.approx(expected, rel=1e-6))
    assert angles(fine).frames_share(one_frame) is None  # one error for all: digitised


# Functions of time and diffusion ----------------------------------------------------------------

STEP = 0.002  # ps
MOVING: Any = SimpleNamespace(check_observable=lambda o: None, timestep=STEP, place=lambda: None)
LAGS = [0, 10, 20, 50, 100]  # 0 .. 0.2 ps, not regular


def decay(t: np.ndarray) -> np.ndarray:
    """Something like a velocity autocorrelation function, nm^2/ps^2."""
    return 0.05 * np.exp(-t / 0.05) * np.cos(20 * t)


def over_time(t: np.ndarray, c: Any = None, **options: Any) -> Target:
    options.setdefault("uncertainty", 1e-3)
    observable = options.pop("observable", VACF(LAGS))
    return Target(MOVING, observable, t, decay(t) if c is None else c, **options)


def test_a_function_of_time_is_compared_where_it_was_measured() -> None:
    t = np.array([0.0, 0.013, 0.02, 0.07, 0.2])
    made = over_time(t)
    assert made.axis is not None and made.axis.name == "t"
    np.testing.assert_array_equal(made.x, t)
    np.testing.assert_array_equal(made.values, decay(t))
    np.testing.assert_array_equal(made.uncertainty, 1e-3)
    cubic = np.random.default_rng(5).normal(size=4)  # which a cubic spline reproduces
    model = np.polyval(cubic, STEP * np.array(LAGS))
    np.testing.assert_allclose(made.response.matrix @ model, np.polyval(cubic, t), atol=1e-12)


def test_the_timestep_is_that_of_the_segments() -> None:
    t = np.linspace(0, 0.05, 6)
    own = [velocity_verlet(0.0005), openmm.VerletIntegrator(0.0005)]
    for integrator in own:
        observable = VACF(LAGS, integrator=integrator)
        assert observable.segment_timestep(MOVING.timestep) == pytest.approx(0.0005)
        made = over_time(t, observable=observable)
        model = 3.0 - 2.0 * 0.0005 * np.array(LAGS)
        np.testing.assert_allclose(made.response.matrix @ model, 3.0 - 2.0 * t, atol=1e-9)
    assert VACF(LAGS).segment_timestep(MOVING.timestep) == pytest.approx(STEP)


def test_times_out_of_order_beyond_the_lags_and_nan_do_not_count() -> None:
    t = np.linspace(0, 0.4, 21)
    c = np.where(t > 0.3, np.nan, decay(t))
    order = np.random.default_rng(7).permutation(21)
    made = over_time(t[order], c[order])
    np.testing.assert_allclose(made.x, t[:11], atol=1e-15)  # up to the last lag, 0.2 ps
    made = over_time(t, c, window=(0.05, 0.15))
    np.testing.assert_allclose(made.x, t[3:8], atol=1e-15)


def test_a_time_that_was_rounded_to_the_last_lag_counts() -> None:
    last = 100 * STEP
    made = over_time(np.array([0.0, 0.1, last * (1 + 1e-8)]))
    assert len(made.values) == 3
    np.testing.assert_allclose(made.response.matrix[-1], [0, 0, 0, 0, 1], atol=1e-12)


def test_quantities_of_dynamics_are_converted() -> None:
    t = np.linspace(0, 0.2, 5)
    speed = unit.angstrom**2 / unit.picosecond**2
    made = over_time(
        unit.Quantity(1000 * t, unit.femtosecond),
        unit.Quantity(100 * decay(t), speed),
        uncertainty=0.1 * speed,
    )
    np.testing.assert_allclose(made.x, t, atol=1e-15)
    np.testing.assert_allclose(made.values, decay(t), rtol=1e-12)
    np.testing.assert_allclose(made.uncertainty, 1e-3)
    squared = unit.angstrom**2
    made = over_time(t, unit.Quantity(t, squared), uncertainty=1 * squared, observable=MSD(LAGS))
    np.testing.assert_allclose(made.values, 0.01 * t)
    np.testing.assert_allclose(made.uncertainty, 0.01)
    made = Target(
        MOVING,
        Diffusion(50),
        2.4e-5 * unit.centimeter**2 / unit.second,
        uncertainty=1e-6 * unit.centimeter**2 / unit.second,
    )
    np.testing.assert_allclose([*made.values, *made.uncertainty], [2.4e-3, 1e-4])
    assert made.x is None and made.curve is None and made.response.matrix == [[1.0]]


def test_an_error_of_zero_at_the_origin_becomes_the_median() -> None:
    t = np.linspace(0, 0.2, 5)
    made = over_time(t, 0.01 * t**2, uncertainty=1e-4 * t, observable=MSD(LAGS))
    np.testing.assert_allclose(made.uncertainty, 1e-4 * np.array([0.125, 0.05, 0.1, 0.15, 0.2]))


def test_a_function_of_time_has_no_frames_to_share() -> None:
    made = over_time(np.linspace(0, 0.2, 40), noise="sampled")
    assert made.frames_share(np.ones(40)) is None


def test_a_function_of_time_comes_from_a_file(tmp_path: Path) -> None:
    t = np.linspace(0, 0.3, 16)
    path = write(tmp_path / "c.txt", t, decay(t), np.full(16, 2e-3))
    made = Target.from_file(MOVING, VACF(LAGS), path, window=(0.0, 0.1))
    np.testing.assert_array_equal(made.x, t[t <= 0.1])
    np.testing.assert_array_equal(made.uncertainty, 2e-3)
    path = write(tmp_path / "c.txt", t, decay(t))
    with pytest.raises(TargetError, match=r"c\.txt.*no error column"):
        Target.from_file(MOVING, VACF(LAGS), path)


DYNAMICS_REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "t without values": (
        lambda: Target(MOVING, VACF(LAGS), [0.0, 0.1, 0.2], uncertainty=1.0),
        r"VACF needs t and values, got 1",
    ),
    "all beyond the lags": (
        lambda: over_time(np.linspace(0.3, 1, 9)),
        r"only 0 points.*0\.2000 ps.*at least 3",
    ),
    "two points": (lambda: over_time(np.array([0.0, 0.1])), r"2 usable rows, expected at least 3"),
    "too few in the window": (
        lambda: over_time(np.linspace(0, 0.2, 5), window=(0.04, 0.12)),
        r"only 2 points.*between 0\.0400 and 0\.1200 ps",
    ),
    "negative times": (lambda: over_time(np.array([-0.1, 0, 0.1, 0.2])), r"got t = -0\.1"),
    "errors of another length": (
        lambda: over_time(np.linspace(0, 0.2, 5), uncertainty=[1.0, 2.0]),
        r"uncertainty: expected.*5.*got.*2",
    ),
    "a window for lags of fs": (
        lambda: over_time(1000 * np.linspace(0, 0.2, 9)),
        r"only 1 points of the target lie between 0\.0000 and 0\.2000 ps",
    ),
    "two numbers for diffusion": (
        lambda: Target(MOVING, Diffusion(50), 1.0, 2.0, uncertainty=1.0),
        r"needs one value, got 2",
    ),
}


@pytest.mark.parametrize("case", DYNAMICS_REFUSED)
def test_dynamics_that_cannot_be_is_refused(case: str) -> None:
    make, message = DYNAMICS_REFUSED[case]
    with pytest.raises(TargetError, match=message):
        make()


def test_other_units_of_dynamics_are_refused() -> None:
    with pytest.raises(UnitError, match="diffusion"):
        Target(MOVING, Diffusion(50), 1 * unit.bar, uncertainty=1.0)
    with pytest.raises(UnitError, match="time"):
        over_time(unit.Quantity(np.linspace(0, 1, 5), unit.nanometer), np.ones(5))
    with pytest.raises(UnitError, match="squared velocity"):
        over_time(np.linspace(0, 0.2, 5), uncertainty=1 * unit.nanometer)


# What is refused --------------------------------------------------------------------------------

NAN = np.full(len(R), np.nan)
WITH_ONE_INFINITE = np.where(np.arange(len(R)) == 12, np.inf, G)

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "noise of a name that is unknown": (
        lambda: target(noise="white"),
        r"noise: expected 'auto', 'sampled' or 'independent', got 'white'",
    ),
    "weight of zero": (lambda: target(weight=0.0), r"weight: got 0\.0, expected a number"),
    "weight below zero": (lambda: target(weight=-1.0), r"weight: got -1\.0, expected a number"),
    "weight that is NaN": (lambda: target(weight=np.nan), r"weight: got nan, expected a number"),
    "r without g": (lambda: target(R), r"needs r and g, got 1"),
    "r, g and one more": (lambda: target(R, G, G), r"needs r and g, got 3"),
    "two numbers for a scalar": (
        lambda: Target(ANYWHERE, Pressure(), 1.0, 2.0, uncertainty=1.0),
        r"needs one value, got 2",
    ),
    "a list of two for a scalar": (
        lambda: Target(ANYWHERE, Pressure(), [1.0, 2.0], uncertainty=1.0),
        r"expected.*1.*got.*2",
    ),
    "errors of another length than a scalar": (
        lambda: Target(ANYWHERE, Pressure(), 1.0, uncertainty=[1.0, 2.0]),
        r"expected.*got.*2",
    ),
    "a scalar that is NaN": (
        lambda: Target(ANYWHERE, Pressure(), np.nan, uncertainty=1.0),
        r"expected finite values, got.*nan",
    ),
    "a scalar without error": (
        lambda: Target(ANYWHERE, Pressure(), 1.0, uncertainty=0.0),
        r"expected positive numbers, got.*0\.0",
    ),
    "a scalar with a negative error": (
        lambda: Target(ANYWHERE, Pressure(), 1.0, uncertainty=-2.0),
        r"expected positive numbers, got.*-2",
    ),
    "a scalar with an error that is NaN": (
        lambda: Target(ANYWHERE, Pressure(), 1.0, uncertainty=np.nan),
        r"expected positive numbers, got.*nan",
    ),
    "r and g of different lengths": (lambda: target(R, G[:-1]), r"got.*shapes.*expected"),
    "errors of another length": (
        lambda: target(uncertainty=G[:-1]),
        r"uncertainty: expected.*30.*got.*29",
    ),
    "g of two dimensions": (lambda: target(R, np.stack([G, G])), r"got.*shapes.*expected"),
    "g that is NaN throughout": (lambda: target(R, NAN), r"NaN in each"),
    "g with an infinity": (lambda: target(R, WITH_ONE_INFINITE), r"got g = inf, expected"),
    "g below zero": (lambda: target(R, G - 3), r"got g = -3, expected"),
    "r below zero": (lambda: target(R - 0.2, G), r"got r = -0\.15, expected"),
    "r and g swapped": (lambda: target(1 + np.cos(50 * R), R), r"swapped.*expected r first"),
    "errors below zero": (lambda: target(uncertainty=-0.1), r"got error = -0\.1, expected"),
    "errors of zero everywhere": (lambda: target(uncertainty=0.0), r"expected pos.*got only zeros"),
    "an error that is NaN": (
        lambda: target(uncertainty=np.where(R > 0.5, np.nan, 0.1)),
        r"got error = nan, expected",
    ),
    "no uncertainty": (lambda: target(uncertainty=None), r"got error = nan, expected"),
    "too few points": (lambda: target(R[:4], G[:4]), r"got 4 usable rows, expected at least 5"),
    "a window between two points": (
        lambda: target(window=(0.51, 0.55)),
        r"only 1 points.*between 0\.5100 and 0\.5500",
    ),
    "a window the wrong way round": (lambda: target(window=(0.6, 0.3)), r"only 0 points"),
    "a huge value": (lambda: target(R, G + 1e300), r"^g\(r\): value: got .*1e\+300.*, expected"),
    "a tiny error": (lambda: target(uncertainty=1e-20), r"^g\(r\): uncertainty: got .*1e-20"),
    "a million points": (
        lambda: target(np.linspace(0.01, 0.99, 10**6), np.ones(10**6)),
        r"1000000 rows, expected a table of at most 20000 rows; average neighbouring ones",
    ),
    "data in angstrom taken for nm": (
        lambda: target(10 * R, G),
        r"g rises above 0\.5 at r = 3.* nm .* compared up to 1 nm; was the file in angstrom",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_what_was_got_and_expected(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(TargetError, match=message):
        make()


def test_a_length_for_a_pressure_is_refused() -> None:
    with pytest.raises(UnitError, match="pressure"):
        Target(ANYWHERE, Pressure(), 1.0 * unit.nanometer, uncertainty=1.0)
    with pytest.raises(UnitError, match="length"):
        target(unit.Quantity(R, unit.kelvin), G)


def test_numbers_of_a_refusal_are_attributes_of_the_error() -> None:
    with pytest.raises(TargetError) as caught:
        target(window=(0.51, 0.55))
    assert caught.value.n_points == 1  # type: ignore[attr-defined]
    with pytest.raises(TargetError) as caught:
        target(weight=-1.0)
    assert caught.value.got == -1.0  # type: ignore[attr-defined]


def test_a_refinement_refuses_targets_that_do_not_belong_to_it() -> None:
    pair = diffsim.LennardJones(0.34, 1.0, 0.8)
    with pytest.raises(TargetError, match="at least one target"):
        diffsim.Refinement(pair, [])

    class Point:
        timestep = 0.002
        potential = diffsim.LennardJones(0.34, 1.0, 0.8)

        def check_observable(self, observable: Any) -> None:
            """It measures all of them."""

    other: Any = Point()
    foreign = Target(other, Pressure(), 1.0, uncertainty=1.0)
    with pytest.raises(TargetError, match="another potential"):
        diffsim.Refinement(pair, [foreign])
    with pytest.raises(TargetError, match=r"expected one of \['adam', .*\], got 'newton'"):
        diffsim.Refinement(Point.potential, [foreign], method="newton")
    with pytest.raises(DiffsimError):  # a TargetError is one of ours
        diffsim.Refinement(pair, [])


# How the noise hangs together -------------------------------------------------------------------

FINE = RDF(1.0, 100)
ONE_FRAME = np.maximum(curve(FINE.r), 0.01) / FINE.shells  # variance of a count: Poisson


def counted(frames: float, scatter: float, **options: Any) -> Target:
    """A g(r) with the errors that so many frames have, each known to a relative ``scatter``."""
    noise = np.exp(scatter * np.random.default_rng(3).normal(size=100))
    error = np.sqrt(ONE_FRAME / frames) * noise
    return Target(ANYWHERE, FINE, FINE.r, curve(FINE.r), uncertainty=error, **options)


def share(made: Target) -> float | None:
    return made.frames_share(made.response.matrix @ ONE_FRAME)


def test_auto_takes_errors_that_vary_like_those_of_a_simulation_for_sampled_ones() -> None:
    found = share(counted(400, 0.15))
    # the median over 70 points, each known to 15 % (30 % in the square): 30 % * 1.25 / sqrt(70)
    assert found == pytest.approx(1 / 400, rel=4 * 0.30 * 1.25 / 70**0.5)


@pytest.mark.parametrize("noise", ["auto", "sampled"])
def test_bins_that_the_model_never_counted_say_nothing_of_the_noise(noise: str) -> None:
    made = counted(400, 0.15, noise=noise)
    one_frame = np.where(np.arange(100) % 3 == 0, 0.0, ONE_FRAME)
    with np.errstate(all="raise"):
        assert made.frames_share(one_frame) == pytest.approx(1 / 400, rel=4 * 0.38 / 47**0.5)
        assert made.frames_share(np.zeros(100)) is None


def test_auto_takes_a_constant_uncertainty_for_independent_noise() -> None:
    made = Target(ANYWHERE, FINE, FINE.r, curve(FINE.r), uncertainty=0.02)
    assert made.frames_share(ONE_FRAME) is None


def test_auto_takes_errors_that_vary_otherwise_for_independent_noise() -> None:
    error = 0.001 * np.exp(12 * FINE.r)  # rises with r; that of counting falls
    made = Target(ANYWHERE, FINE, FINE.r, curve(FINE.r), uncertainty=error)
    assert made.frames_share(ONE_FRAME) is None


def test_auto_needs_twenty_points_to_tell() -> None:
    few = Target(
        ANYWHERE,
        FINE,
        FINE.r[40:59],
        curve(FINE.r[40:59]),
        uncertainty=np.sqrt(ONE_FRAME[40:59] / 400),
    )
    assert few.frames_share(ONE_FRAME[40:59]) is None
    enough = Target(
        ANYWHERE,
        FINE,
        FINE.r[40:60],
        curve(FINE.r[40:60]),
        uncertainty=np.sqrt(ONE_FRAME[40:60] / 400),
    )
    assert enough.frames_share(ONE_FRAME[40:60]) == pytest.approx(1 / 400, rel=1e-6)


def test_what_the_user_says_about_the_noise_holds() -> None:
    assert share(counted(400, 0.0, noise="independent")) is None
    assert share(counted(400, 0.0, noise="sampled")) == pytest.approx(1 / 400, rel=1e-6)
    constant = Target(ANYWHERE, FINE, FINE.r, curve(FINE.r), uncertainty=0.02, noise="sampled")
    ratio = 0.02**2 / ONE_FRAME[curve(FINE.r) > 0.3]
    assert share(constant) == pytest.approx(np.median(ratio), rel=0.05)


@pytest.mark.parametrize("noise", ["auto", "sampled", "independent"])
def test_a_window_in_the_core_tells_nothing_and_counts_as_independent(noise: str) -> None:
    made = counted(400, 0.0, window=(0.0, 0.25), noise=noise)
    assert share(made) is None


def test_a_scalar_has_no_noise_to_hang_together() -> None:
    made = Target(ANYWHERE, Pressure(), 1.0, uncertainty=1.0, noise="sampled")
    assert made.frames_share(np.ones(1)) is None


# Interpolation ----------------------------------------------------------------------------------


def test_interpolation_is_that_of_numpy() -> None:
    rng = np.random.default_rng(4)
    grid, values = RDF_OBSERVABLE.r, rng.normal(size=50)
    r = np.sort(np.concatenate([rng.uniform(grid[0], grid[-1], 40), grid[[0, 7, 49]]]))
    matrix = interpolation_matrix(grid, r)
    assert matrix.shape == (43, 50)
    np.testing.assert_allclose(matrix @ values, np.interp(r, grid, values), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)
    assert (matrix >= 0).all() and ((matrix > 0).sum(axis=1) <= 2).all()


def test_interpolation_is_that_of_numpy_on_an_irregular_grid_too() -> None:
    rng = np.random.default_rng(8)
    grid = np.cumsum(rng.uniform(0.1, 2, 12))
    x, values = rng.uniform(grid[0], grid[-1], 30), rng.normal(size=12)
    np.testing.assert_allclose(
        interpolation_matrix(grid, x) @ values, np.interp(x, grid, values), atol=1e-12
    )


def test_interpolation_goes_on_flat_beyond_the_grid() -> None:
    grid = np.array([1.0, 2.0, 3.0])
    matrix = interpolation_matrix(grid, np.array([0.0, 5.0]))
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 0, 1]], atol=1e-12)


def test_a_target_on_the_bin_centres_reads_the_bins() -> None:
    made = Target(ANYWHERE, FINE, FINE.r, curve(FINE.r), uncertainty=0.02)
    g = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).numpy()
    np.testing.assert_allclose(made.response.matrix @ g, g, atol=1e-9)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([0.3, 0.4], [1.0]), r"y of a curve: expected the shape \(2,\), got \(1,\)"),
        (([[0.3], [0.4]], [1.0, 1.0]), r"x of a curve: expected the shape \(2,\)"),
        (([0.3, 0.4], [1.0, 1.0], [0.1]), "error of a curve"),
        (([0.3, 0.4], [1.0, 1.0], None, np.eye(3)), "covariance of a curve"),
        (([0.4, 0.3], [1.0, 1.0]), "expected rising numbers"),
        (([0.3, np.nan], [1.0, 1.0]), "expected rising numbers"),
    ],
)
def test_what_is_no_curve_is_refused(arrays: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Curve(*(None if a is None else np.array(a) for a in arrays))
