"""From a configuration to targets: angles, lags, checks of the data, what a user is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import malformed
import numpy as np
import pytest

from openmm_diffsim import MSD, VACF, AngleDistribution, Diffusion, Refinement
from openmm_diffsim.configuration.build import build_refinement
from openmm_diffsim.configuration.toml import parse_configuration, read_configuration
from openmm_diffsim.engine.segments.integrators import Scheme
from openmm_diffsim.errors import ConfigurationError, TargetError
from openmm_diffsim.fluid import Dynamics, fluid
from openmm_diffsim.observables.dynamics import lags_for
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

STEP, KELVIN, MASS = 0.004, 150.0, 39.948  # ps, K, amu
SQUARED_SPEED = 3 * MOLAR_GAS_CONSTANT * KELVIN / MASS
T = np.arange(0, 0.401, 0.02)  # ps
DIFFUSION = {"observable": "diffusion", "value": 2.4e-3, "uncertainty": 1e-4, "length": 0.4}


def vacf(folder: Path, t: np.ndarray = T, c_0: float = SQUARED_SPEED, **options: Any) -> Any:
    c = c_0 * np.exp(-t / 0.1)
    np.savetxt(folder / "c.csv", np.stack([t, c], axis=1))
    return {"observable": "vacf", "file": "c.csv", "uncertainty": 1e-3} | options


def build(
    folder: Path, target: dict[str, Any], said: list[str] | None = None, **potential: Any
) -> Refinement:
    raw = {
        "system": {"particles": 60, "number_density": 10.0, "mass": MASS},
        "dynamics": {"temperature": KELVIN, "timestep": STEP, "platform": "Reference"},
        "potential": {
            "kind": "lennard-jones",
            "sigma": 0.34,
            "epsilon": 1.0,
            "cutoff": 0.8,
            "r_min": 0.28,
            **potential,
        },
        "target": [target],
        "refine": {"steps": 1000, "every": 25},
    }
    tell: Any = [].append if said is None else said.append
    return build_refinement(parse_configuration(raw, folder), warn=tell)


def test_a_pressure_adds_a_barostat_for_a_density(tmp_path: Path) -> None:
    raw = {
        "system": {"particles": 60, "number_density": 10.0, "mass": MASS},
        "dynamics": {"temperature": KELVIN, "timestep": STEP, "platform": "Reference"},
        "potential": {"kind": "lennard-jones", "sigma": 0.34, "epsilon": 1.0, "cutoff": 0.7,
                      "r_min": 0.28},
        "target": [
            {"observable": "density", "value": 700.0, "unit": "kg/m3", "uncertainty": 5.0},
            {"observable": "heat-capacity", "value": 40.0, "uncertainty": 5.0},
        ],
        "refine": {"steps": 200, "every": 10},
    }  # fmt: skip
    with pytest.raises(TargetError, match=r"target\[0\]\.observable: Density: expected a state"):
        build_refinement(parse_configuration(raw, tmp_path), [].append)
    raw["dynamics"]["pressure"] = 30.0  # type: ignore[index]
    fit = build_refinement(parse_configuration(raw, tmp_path), [].append)
    point = fit.targets[0].state_point
    assert point.pressure == 30.0 and fit.targets[0].values[0] == pytest.approx(0.7)
    samples = point.sample(200, 10, [t.observable for t in fit.targets])
    assert np.ptp(samples.volume) > 0
    assert samples.average(fit.targets[1].observable).item() > 0


def test_two_barostats_are_refused() -> None:
    _, system = fluid(60, 10.0, MASS)
    dynamics = Dynamics(KELVIN, STEP, pressure=1.0)
    dynamics.press(system, 1)
    with pytest.raises(ConfigurationError, match="a barostat of its own") as said:
        dynamics.press(system, 1)
    assert said.value.key == "dynamics.pressure"


def angles(folder: Path, **options: Any) -> Any:
    theta = np.linspace(0, np.pi, 31)
    np.savetxt(folder / "p.csv", np.stack([theta, np.sin(theta) / 2], axis=1))
    return {"observable": "angles", "file": "p.csv", "r_max": 0.5, "uncertainty": 0.02} | options


def test_angles_are_counted_between_the_neighbors_that_are_asked_for(tmp_path: Path) -> None:
    more = {"bins": 45, "atoms": "index < 20", "window": [1.0, 2.0], "weight": 3.0}
    target = build(tmp_path, angles(tmp_path, noise="independent", **more)).targets[0]
    observable = target.observable
    assert isinstance(observable, AngleDistribution)
    assert (observable.r_max, observable.n_values) == (0.5, 45)
    np.testing.assert_array_equal(observable.atoms, np.arange(20))
    assert (target.weight, target.noise) == (3.0, "independent")
    assert target.x is not None and 1 <= target.x[0] < target.x[-1] <= 2
    np.testing.assert_array_equal(target.uncertainty, 0.02)


def test_neighbors_beyond_half_the_box_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"beyond half the box, 0\.9086 nm") as caught:
        build(tmp_path, angles(tmp_path, r_max=1.0))
    assert caught.value.key == "target.r_max"


def test_a_vacf_is_measured_at_the_times_of_the_data(tmp_path: Path) -> None:
    said: list[str] = []
    target = build(tmp_path, vacf(tmp_path, t=T[:15]), said).targets[0]
    observable = target.observable
    assert isinstance(observable, VACF)
    np.testing.assert_array_equal(observable.lags, np.arange(0, 71, 5))
    np.testing.assert_allclose(target.response.matrix, np.eye(15), atol=1e-9)
    assert (observable.integrator, observable.gradient_every, observable.atoms) == (None, 5, None)
    assert said == []


def test_the_options_of_a_segment_are_passed_on(tmp_path: Path) -> None:
    more = {"integrator": "nve", "segments_every": 3, "window": [0.0, 0.2], "atoms": "index < 20"}
    target = build(tmp_path, vacf(tmp_path, weight=2.0, **more)).targets[0]
    observable: Any = target.observable
    assert isinstance(observable.integrator, Scheme)
    assert observable.integrator.name == "velocity Verlet"
    assert observable.integrator.timestep == pytest.approx(STEP)
    assert (observable.gradient_every, observable.lags[-1]) == (3, 50)
    np.testing.assert_array_equal(observable.atoms, np.arange(20))
    assert target.weight == 2.0 and target.x is not None and target.x[-1] == pytest.approx(0.2)


def test_a_mean_square_displacement_is_a_curve_like_a_vacf(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "d.csv", np.stack([T, 0.01 * T**2], axis=1))
    entry = {"observable": "msd", "file": "d.csv", "uncertainty": 1e-4, "window": [0.0, 0.2]}
    target = build(tmp_path, entry | {"integrator": "nve"}).targets[0]
    assert isinstance(target.observable, MSD) and target.observable.lags[-1] == 50
    assert target.x is not None and target.x[-1] == pytest.approx(0.2)


def test_diffusion_is_measured_on_segments_of_its_length(tmp_path: Path) -> None:
    said: list[str] = []
    target = build(tmp_path, DIFFUSION | {"method": "einstein"}, said).targets[0]
    observable: Any = target.observable
    assert isinstance(observable, Diffusion)
    assert (observable.steps, observable.method) == (100, "einstein")
    assert (target.values[0], target.uncertainty[0]) == (2.4e-3, 1e-4)
    assert said == []


def test_segments_that_cost_more_than_the_fit_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    build(tmp_path, DIFFUSION | {"length": 4.0}, said)
    assert len(said) == 1
    assert "Diffusion" in said[0] and "1000 steps" in said[0] and "40 times" in said[0]


def test_data_that_are_no_vacf_of_these_particles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=r"c\.csv: got C\(0\) = 1, expected about 3RT/m = 0\.09366"
    ):
        build(tmp_path, vacf(tmp_path, c_0=1.0))
    with pytest.raises(TargetError, match=r"c\.csv: has no column of errors.*uncertainty"):
        build(tmp_path, {k: v for k, v in vacf(tmp_path).items() if k != "uncertainty"})


def test_who_knows_better_says_so(tmp_path: Path) -> None:
    target = build(tmp_path, vacf(tmp_path, c_0=1.0, as_it_is=True)).targets[0]
    assert target.values[0] == 1.0


def test_which_column_of_a_file_is_meant(tmp_path: Path) -> None:
    entry = vacf(tmp_path, columns=[1, 3])
    t, c = np.loadtxt(tmp_path / "c.csv", unpack=True)
    np.savetxt(tmp_path / "c.csv", np.stack([t, 0.1 * c, c], axis=1))
    assert build(tmp_path, entry).targets[0].values[0] == pytest.approx(SQUARED_SPEED)


@pytest.mark.parametrize(
    ("ends", "message"),
    [((3, 8), "it would in angstrom"), ((0.5, 0.55), "expected it to cover r_min = 0.28 nm")],
)
def test_a_table_that_says_little_of_the_potential_is_refused(
    tmp_path: Path, ends: tuple[float, float], message: str
) -> None:
    r = np.linspace(*ends, 30)
    np.savetxt(tmp_path / "u.txt", np.stack([r, 1 - r / r[-1]], axis=1))
    own = {"kind": "spline", "initial": "table", "file": "u.txt"}
    with pytest.raises(ConfigurationError, match=message) as caught:
        build(tmp_path, DIFFUSION, **own)
    assert caught.value.key == "potential.file"
    assert str(tmp_path / "u.txt") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"window": [0.5, 1.0]}, "target.window", "has 0 points from 0.5 to 1 ps"),
        ({"atoms": "name Q"}, "target.atoms", "selects no atom"),
    ],
)
def test_a_vacf_that_cannot_be_is_refused(
    tmp_path: Path, change: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(tmp_path, vacf(tmp_path, **change))
    assert caught.value.key == key and words in str(caught.value)


def test_a_segment_too_short_for_diffusion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"target\.length: 0\.02 ps are 5 steps") as caught:
        build(tmp_path, DIFFUSION | {"length": 0.02})
    assert caught.value.key == "target.length"


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (np.arange(0, 0.1001, 0.01), np.arange(0, 51, 5)),  # as the data: 0.002 ps a step
        (np.arange(0.02, 0.0601, 0.02), [10, 20, 30]),  # starts where they do
        (np.arange(0, 0.0101, 0.001), np.arange(6)),  # never finer than a step
        (np.array([0.0, 0.011, 0.021]), [0, 4, 7, 11]),  # and reaches over all of them
        (np.array([0.0, 0.0005, 0.001]), [0, 1]),
    ],
)
def test_lags_are_as_fine_as_the_data(t: np.ndarray, expected: Any) -> None:
    np.testing.assert_array_equal(lags_for(t, 0.002), expected)


def test_lags_of_many_data_are_no_more_than_twenty() -> None:
    lags = lags_for(np.arange(0, 1.0001, 0.002), 0.002)
    assert len(lags) == 20 and (lags[0], lags[-1]) == (0, 500)
    assert set(np.diff(lags)) <= {26, 27}


NO_STARTS = {
    "NaN box": ("system.xml", r'(<A x=")[^"]*', r"\1nan", "system.system", "box vectors"),
    "no length": ("state.xml", r'(<B[^>]* y=")[^"]*', r"\g<1>0", "system.state", "a volume"),
    "a word": ("state.xml", r'(<C[^>]* z=")[^"]*', r"\1long", "system.state", "a volume"),
    "far": ("state.xml", r'(<Position x=")[^"]*', r"\g<1>1e300", "system.state", "at [1e+300"),
}


@pytest.mark.parametrize("case", NO_STARTS)
def test_where_no_simulation_can_start_from_the_file_is_named(tmp_path: Path, case: str) -> None:
    name, pattern, damage, key, words = NO_STARTS[case]
    malformed.write_valid(tmp_path)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(re.sub(pattern, damage, text, count=1))
    with pytest.raises(ConfigurationError) as caught:
        build_refinement(read_configuration(tmp_path / "own.toml"))
    assert caught.value.key == key
    assert name in str(caught.value) and words in str(caught.value)


def test_what_is_said_besides_is_said_once_all_is_known_to_be_right(tmp_path: Path) -> None:
    malformed.write_valid(tmp_path)
    said: list[str] = []
    raw = malformed.FLUID | {"system": {"particles": 100, "number_density": 20.0, "mass": 40.0}}
    build_refinement(parse_configuration(raw, tmp_path), said.append)
    assert len(said) == 1 and "half the box" in said[0]
    said.clear()
    with pytest.raises(ConfigurationError):  # of the platform, which is looked for later
        dynamics = raw["dynamics"] | {"platform": "Abacus"}
        build_refinement(parse_configuration(raw | {"dynamics": dynamics}, tmp_path), said.append)
    assert not said


def test_energies_beyond_all_measure_are_refused(tmp_path: Path) -> None:
    malformed.write_valid(tmp_path)
    path = tmp_path / "u.csv"
    path.write_text(path.read_text().replace("0.5,", "0.5,1e300\n0.500001,"))
    with pytest.raises(ConfigurationError, match=r"u\.csv: at r = 0\.\d+ nm u got .*e\+") as caught:
        build_refinement(read_configuration(tmp_path / "table.toml"))
    assert caught.value.key == "potential.file"


# How it was measured ----------------------------------------------------------------------------


def test_how_a_curve_was_measured_is_passed_on(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "cov.txt", 1e-4 * np.eye(31))
    np.savetxt(tmp_path / "beam.txt", np.full(31, 0.01))
    more: dict[str, Any] = {
        "resolution": 0.05,
        "smear": "counts",
        "points": "bin",
        "shells": [0.0, 3.2],
        "normalisation": "unit integral",
        "scale": 0.02,
        "offset": 0.001,
        "background": [0.01, 0.5],
        "broadening": 0.02,
        "shift": 0.01,
        "systematic": "beam.txt",
        "covariance": "cov.txt",
    }
    entry = angles(tmp_path) | more
    del entry["uncertainty"]
    target = build(tmp_path, entry).targets[0]
    how = target.measurement
    assert (how.resolution, how.smear, how.points, how.shells) == (0.05, "counts", "bin", (0, 3.2))
    assert (how.normalisation, how.scale, how.offset) == ("unit integral", 0.02, 0.001)
    assert how.background == (0.01, 0.5)
    np.testing.assert_allclose(target.uncertainty, 0.01)
    found = target.unknowns.at(target.values, np.ones(target.observable.n_values), False)
    names = [nuisance.name for nuisance in found]
    assert names == ["scale", "broadening", "shift", "offset", "background", "systematic"]


def test_a_value_may_have_an_offset_and_no_resolution(tmp_path: Path) -> None:
    target = build(tmp_path, DIFFUSION | {"scale": 0.1, "offset": 1e-5}).targets[0]
    assert (target.measurement.scale, target.measurement.offset) == (0.1, 1e-5)
    with pytest.raises(ConfigurationError, match=r"target\[0\].resolution: unknown key"):
        build(tmp_path, DIFFUSION | {"resolution": 0.1})


def test_what_lies_along_the_axis_is_in_the_unit_of_the_file(tmp_path: Path) -> None:
    theta = np.linspace(0, 180, 31)
    np.savetxt(tmp_path / "d.csv", np.stack([theta, np.sin(np.radians(theta)) * np.pi / 360], 1))
    np.savetxt(tmp_path / "beam.txt", np.linspace(2.0, 3.0, 31))
    more: dict[str, Any] = {
        "file": "d.csv",
        "angle_unit": "degree",
        "resolution": "beam.txt",
        "points": "bin",
        "shells": [0.0, 183.0],
        "scale": [0.02, 30.0],
        "background": [0.01, 20.0],
        "broadening": 2.0,
        "shift": 1.0,
    }
    how = build(tmp_path, angles(tmp_path, **more)).targets[0].measurement
    np.testing.assert_allclose(how.resolution, np.radians(np.linspace(2.0, 3.0, 31)))
    np.testing.assert_allclose(how.shells, np.radians([0.0, 183.0]))
    np.testing.assert_allclose([how.broadening, how.shift], np.radians([2.0, 1.0]))
    np.testing.assert_allclose(how.scale, (0.02, np.radians(30.0)))
    np.testing.assert_allclose(how.background, (0.01, np.radians(20.0)))


def test_what_a_target_refuses_has_its_key(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "one.txt", np.full((31, 31), 1e-4))
    (tmp_path / "words.txt").write_text("no numbers\n")
    wrong: list[dict[str, Any]] = [
        {"covariance": "one.txt"},
        {"covariance": "words.txt"},
        {"systematic": "words.txt"},
        {"normalisation": -1.0},
        {"shift": 50.0},
        {"smear": "counts"},
    ]
    for options in wrong:
        entry = angles(tmp_path, **options)
        if "covariance" in options:
            del entry["uncertainty"]
        key = f"target[0].{next(iter(options))}"
        with pytest.raises(TargetError, match=f"^{re.escape(key)}: ") as caught:
            build(tmp_path, entry)
        assert caught.value.key == key


MISMEASURED: dict[str, tuple[dict[str, Any], str]] = {
    "resolution": ({"resolution": -1.0}, "got -1.0, expected a number from"),
    "no file": ({"resolution": "none.txt"}, "there is no file"),
    "smear": ({"smear": "bins"}, "got 'bins', expected one of density, counts"),
    "points": ({"points": [2.0, 1.0]}, r"got \[2.0, 1.0\], expected \[low, high\] in rad"),
    "shells": ({"shells": "upper"}, "expected one of exact, centre, lower"),
    "normalisation": ({"normalisation": True}, "got True, expected a number"),
    "scale": ({"scale": 2.0}, "got 2.0, expected a number from 0 to 1; a relative uncertainty"),
    "drift": ({"scale": [0.1]}, r"got \[0.1\], expected \[amplitude, correlation length\]"),
    "offset": ({"offset": "big"}, "got 'big', expected a number"),
    "background": ({"background": 0.1}, r"got 0.1, expected \[amplitude, correlation length\]"),
    "length": ({"background": [0.1, -1.0]}, "correlation_length: got -1.0, expected a number"),
    "systematic": ({"systematic": 0.1}, "got 0.1, expected text"),
    "covariance": ({"covariance": "p.csv"}, "got uncertainty as well; give one of them"),
}


@pytest.mark.parametrize("case", MISMEASURED)
def test_how_it_cannot_be_measured_is_refused_by_the_key(tmp_path: Path, case: str) -> None:
    options, words = MISMEASURED[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        build(tmp_path, angles(tmp_path, **options))
    assert caught.value.key == f"target[0].{next(iter(options))}"
