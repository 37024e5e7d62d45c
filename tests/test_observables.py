"""What an observable says of itself: its identity, axis, names, and entry in a configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest

from openmm_diffsim import (
    MSD,
    RDF,
    VACF,
    AngleDistribution,
    Covariance,
    Density,
    DielectricConstant,
    Diffusion,
    FunctionOfAverages,
    HeatCapacity,
    HeatOfVaporization,
    IncoherentScattering,
    Observable,
    PotentialEnergy,
    Pressure,
    SegmentFunction,
    SelfVanHove,
    SmoothRDF,
    SpecificHeatCapacity,
    SurfaceTension,
    Volume,
)
from openmm_diffsim.configuration.observables import find_observable
from openmm_diffsim.curve import Axis, Curve
from openmm_diffsim.engine.segments import langevin_middle, velocity_verlet
from openmm_diffsim.errors import ConfigurationError, ObservableError
from openmm_diffsim.observables import ENTRIES

STEP = 0.002  # ps


def first(segment: Any) -> Any:
    return segment.positions[..., 0, 0, 0]


def last(segment: Any) -> Any:
    return segment.positions[..., -1, 0, 0]


def langevin(friction: float = 1.0, seed: int = 0) -> openmm.Integrator:
    integrator = openmm.LangevinMiddleIntegrator(300, friction, STEP)
    integrator.setRandomNumberSeed(seed)
    return integrator


# Each row: how it is made, its arguments, and for each of them another value.
MADE: dict[str, tuple[Callable[..., Observable], dict[str, Any], dict[str, Any]]] = {
    "RDF": (
        RDF,
        {"r_max": 0.9, "bins": 9},
        {"r_max": 1.0, "bins": 10, "r_min": 0.1, "atoms": [0, 1], "intramolecular": True},
    ),
    "RDF of two": (RDF, {"r_max": 0.9, "bins": 9, "atoms": [0, 1]}, {"atoms2": [2, 3]}),
    "AngleDistribution": (
        AngleDistribution,
        {"r_max": 0.4, "bins": 9},
        {"r_max": 0.5, "bins": 10, "atoms": [0, 1, 2]},
    ),
    "VACF": (
        VACF,
        {"lags": [0, 2, 4]},
        {
            "lags": [0, 2, 5],
            "atoms": [1],
            "origins": 2,
            "integrator": velocity_verlet(STEP),
            "estimator": "score",
            "gradient_every": 3,
            "seed": 5,
            "truncation": 3,
            "clipping": 7.0,
        },
    ),
    "VACF of origins": (VACF, {"lags": 4, "origins": 3}, {"origin_spacing": 3}),
    "VACF of OpenMM's": (VACF, {"lags": 4, "integrator": langevin()}, {"integrator": langevin(2)}),
    "VACF of a scheme": (
        VACF,
        {"lags": 4, "integrator": langevin_middle(STEP, 300, 1)},
        {"integrator": langevin_middle(STEP, 310, 1)},
    ),
    "Diffusion": (
        Diffusion,
        {"steps": 40, "method": "einstein"},
        {"steps": 50, "method": "green-kubo", "start": 5, "atoms": [1]},
    ),
    "IncoherentScattering": (IncoherentScattering, {"q": 9.0, "lags": 4}, {"q": [9.0, 12.0]}),
    "SelfVanHove": (
        SelfVanHove,
        {"r_max": 0.5, "bins": 5, "lags": 4},
        {"r_max": 0.6, "bins": 6, "width": 0.03},
    ),
    "SmoothRDF": (
        SmoothRDF,
        {"r_max": 0.5, "bins": 5, "steps": 6},
        {"r_max": 0.6, "bins": 6, "every": 2, "width": 0.03},
    ),
    "SegmentFunction": (
        SegmentFunction,
        {"function": last, "steps": 6},
        {"function": first, "steps": 7, "reach": 3},
    ),
    "FunctionOfAverages": (
        FunctionOfAverages,
        {"function": first, "observables": [Pressure(), RDF(0.9, 1)]},
        {"function": last, "observables": [Pressure(), RDF(0.8, 1)], "states": [0, 1]},
    ),
    "PotentialEnergy": (PotentialEnergy, {}, {"n": 5}),
    "HeatOfVaporization": (HeatOfVaporization, {}, {"n": 5, "n_gas": 2, "correction": -5.0}),
    "HeatCapacity": (HeatCapacity, {}, {"at": "volume", "n": 5}),
    "SpecificHeatCapacity": (SpecificHeatCapacity, {}, {"at": "volume"}),
    "Covariance": (
        Covariance,
        {"a": Volume()},
        {"a": Density(), "b": Density(), "over": "RT", "kind": "area"},
    ),
    "DielectricConstant": (
        DielectricConstant,
        {},
        {"background": 1.8, "charges": np.array([0.4, -0.4])},
    ),
    "SurfaceTension": (SurfaceTension, {}, {"axis": "x", "interfaces": 1}),
}


@pytest.mark.parametrize("name", MADE)
def test_an_identity_holds_every_argument_and_nothing_else(name: str) -> None:
    make, arguments, others = MADE[name]
    own = json.dumps(make(**arguments).identity(), sort_keys=True)
    assert json.dumps(make(**arguments).identity(), sort_keys=True) == own
    assert type(make(**arguments)).__name__ in own
    changed = [make(**arguments | {key: value}) for key, value in others.items()]
    found = {own, *(json.dumps(made.identity(), sort_keys=True) for made in changed)}
    assert len(found) == 1 + len(others)


def test_observables_of_different_classes_are_different() -> None:
    lags = [0, 2, 4]
    assert VACF(lags).identity() != MSD(lags).identity()


def test_the_random_numbers_of_an_integrator_do_not_count() -> None:
    made = [VACF(4, integrator=langevin(seed=seed)).identity() for seed in (1, 2)]
    assert made[0] == made[1] and "LangevinMiddleIntegrator" in json.dumps(made[0])


def test_what_has_no_plain_form_is_refused_by_name() -> None:
    class Odd(Observable):
        def __init__(self) -> None:
            self.thing = object()

    with pytest.raises(ObservableError, match="a object has no plain form"):
        Odd().identity()


# Axes -------------------------------------------------------------------------------------------


def test_an_axis_is_where_the_values_are() -> None:
    rdf, angles = RDF(1.0, 50), AngleDistribution(0.35, 60)
    for made, x, name, kind, between in (
        (rdf, rdf.r, "r", "length", "linear"),
        (angles, angles.theta, "theta", "angle", "linear"),
        (VACF([0, 5, 9]), STEP * np.array([0, 5, 9]), "t", "time", "spline"),
        (MSD(2, integrator=langevin_middle(0.5, 300, 1)), [0, 0.5, 1.0], "t", "time", "spline"),
        (SmoothRDF(0.5, 5, 3), [0.05, 0.15, 0.25, 0.35, 0.45], "r", "length", "linear"),
        (SelfVanHove(0.4, 2, [3]), [0.1, 0.3], "r", "length", "linear"),
    ):
        axis = made.axis(STEP)
        assert isinstance(axis, Axis) and len(axis.values) == made.n_values
        assert (axis.name, axis.kind, axis.between) == (name, kind, between)
        np.testing.assert_allclose(axis.values, x)


@pytest.mark.parametrize(
    "made",
    [
        Pressure(),
        Density(),
        Diffusion(20),
        IncoherentScattering([5.0, 9.0], 3),
        SelfVanHove(0.4, 2, [3, 4]),
    ],
)
def test_what_is_no_single_curve_has_no_axis(made: Observable) -> None:
    assert made.axis(STEP) is None


@pytest.mark.parametrize(
    ("axis", "column"),
    [
        (Axis("r", "length", np.arange(3.0)), "r_nm"),
        (Axis("n", "dimensionless", np.arange(3.0)), "n"),
        (Axis("Q", "wavenumber", np.arange(3.0)), "Q_per_nm"),
        (Axis("v", "squared_velocity", np.arange(3.0)), "v_nm2_per_ps2"),
    ],
)
def test_a_column_is_named_after_its_axis_and_unit(axis: Axis, column: str) -> None:
    assert axis.column == column


def test_part_of_a_curve_has_its_part_of_the_covariance() -> None:
    x = np.arange(4.0)
    curve = Curve(x, x**2, 0.1 * x, np.outer(x, x))
    part = curve.at(x > 1)
    np.testing.assert_array_equal(part.x, [2, 3])
    np.testing.assert_array_equal(part.y, [4, 9])
    np.testing.assert_allclose(part.spread, [0.2, 0.3])
    np.testing.assert_array_equal(part.covariance, [[4, 6], [6, 9]])
    assert np.isnan(Curve(x, x).at(x > 1).spread).all() and len(part) == 2


def test_a_g_of_r_says_where_it_rises_and_peaks_and_others_say_nothing() -> None:
    r = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    g = Curve(r, np.array([0.2, 0.0, 0.06, 1.8, 1.2, 1.0]))
    rdf = RDF(1.0, 10)
    assert (rdf.contact(g, 0.05), rdf.contact(g, 0.1), rdf.nearest_distance(g)) == (0.3, 0.4, 0.4)
    assert rdf.contact(Curve(r, 0.1 * r), 0.05) is None
    assert AngleDistribution(0.3).contact(g, 0.05) is None and VACF(3).nearest_distance(g) is None


# Names ------------------------------------------------------------------------------------------


def test_every_entry_names_the_class_that_has_it() -> None:
    assert {"rdf", "angles", "pressure", "vacf", "msd", "diffusion"} <= ENTRIES.keys()
    assert all(cls.entry == name for name, cls in ENTRIES.items())


def test_an_entry_that_is_taken_is_refused() -> None:
    with pytest.raises(ObservableError, match=r"entry 'rdf' of .*Mine is that of RDF already"):

        class Mine(Observable):
            entry = "rdf"

    assert ENTRIES["rdf"] is RDF


SOURCE = """
from openmm_diffsim import Observable, Pressure
class Mine(Observable):
    entry = "mine_of_test_observables"
nothing = 3
"""


def test_a_class_of_ones_own_is_found_in_a_file_and_in_a_module(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    found = find_observable("mine.py:Mine", tmp_path, True)
    assert found is find_observable("mine.py:Mine", tmp_path, True)  # not run a second time
    assert found is find_observable("mine_of_test_observables", tmp_path)
    assert find_observable("openmm_diffsim.observables:VACF", tmp_path, True) is VACF
    del ENTRIES["mine_of_test_observables"], sys.modules[found.__module__]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rfd", r"got 'rfd', expected one of .*rdf.*did you mean 'rdf'\?"),
        ("absent.py:Mine", "there is no file .*absent.py"),
        ("good.py:Other", "has no class 'Other' that is an Observable"),
        ("good.py:nothing", "has no class 'nothing'"),
        ("broken.py:Mine", r"broken\.py cannot be run: ZeroDivisionError"),
        ("no_such_module_here:Mine", "no_such_module_here cannot be imported: ModuleNotFound"),
    ],
)
def test_a_class_that_is_not_there_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "good.py").write_text(SOURCE.replace("entry =", "other ="))
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ConfigurationError, match=words):
        find_observable(name, tmp_path, True)


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        text = SOURCE.replace("mine_of_test", f"mine_{folder}_of_test") + f"Mine.which = {value}\n"
        (tmp_path / folder / "mine.py").write_text(text)
    found: Any = [find_observable(f"{folder}/mine.py:Mine", tmp_path, True) for folder in "ab"]
    assert [cls.which for cls in found] == [1, 2]
    assert found[0] is find_observable("a/mine.py:Mine", tmp_path, True)
    for cls in found:
        del ENTRIES[cls.entry], sys.modules[cls.__module__]


# One of one's own, from the command line --------------------------------------------------------

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PACKAGE = EXAMPLES.parent / "openmm_diffsim"
OWN = EXAMPLES / "coordination_numbers.py"

CONFIG = """
system = {{ particles = 80, number_density = 8.0, mass = 39.948 }}
dynamics = {{ temperature = 180.0, timestep = 0.01, threads = 1, platform = "Reference" }}
potential = {{ kind = "lennard-jones", sigma = 0.34, epsilon = 0.9, cutoff = 0.8, r_min = 0.3 }}
[[target]]
observable = "{place}:CoordinationNumbers"
file = "p.csv"
uncertainty = 0.02
r_cut = 0.52
{more}
[refine]
rounds = 1
steps = 1000
every = 25
"""

# What the command line does, with the texts on the axes of the figure that it saves.
PROGRAM = """
import json, sys
from openmm_diffsim import cli
from openmm_diffsim.report import figures
made = figures.figure_bytes
def made_and_told(figure, kind="png"):
    texts = [[axes.get_xlabel(), axes.get_ylabel()] for axes in figure.axes]
    open("texts.json", "w").write(json.dumps(texts))
    return made(figure, kind)
figures.figure_bytes = made_and_told
sys.exit(cli.main(["refine", "fit.toml", "--trust"]))
"""


def refine(folder: Path, place: Path | str, more: str = "") -> subprocess.CompletedProcess[str]:
    """In a process of its own: nothing but the configuration says where the class is."""
    n = np.arange(17.0)
    p = np.exp(-0.5 * ((n - 4.5) / 1.7) ** 2)
    np.savetxt(folder / "p.csv", np.stack([n, p / p.sum()], axis=1), delimiter=",")
    (folder / "fit.toml").write_text(CONFIG.format(place=place, more=more))
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=False
    )


def test_an_observable_of_ones_own_is_one_class_in_one_short_file() -> None:
    assert len(OWN.read_text(encoding="utf-8").splitlines()) <= 60
    mentions = [p for p in PACKAGE.rglob("*.py") if "coordinationnumbers" in p.read_text().lower()]
    assert mentions == []


def test_it_has_a_file_an_entry_a_target_a_table_and_a_panel(tmp_path: Path) -> None:
    done = refine(tmp_path, OWN, "most = 16")
    assert done.returncode in (0, 4), done.stderr
    out = tmp_path / "refined"
    header, *rows = (out / "coordination_0.csv").read_text().splitlines()
    assert header == "n,p_target,p_model,standard_error"
    n, target, model, error = np.loadtxt(rows, delimiter=",").T
    np.testing.assert_array_equal(n, np.arange(17))
    np.testing.assert_allclose(target, np.loadtxt(tmp_path / "p.csv", delimiter=",")[:, 1])
    assert model.sum() == pytest.approx(1, rel=1e-9) and (error > 0).all()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["configuration"]["target"][0]["r_cut"] == 0.52
    assert summary["final"]["misfit"] > 0 and summary["final"]["rdf_rms"] is None
    assert (out / "figure.png").stat().st_size > 20_000
    texts = json.loads((tmp_path / "texts.json").read_text())
    assert texts[2:] == [["", "P(n)"], ["n", "model - target"]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("most = 2", "target[0].most: got 2, expected a whole number from 4"),
        ("r_ct = 0.5", "target[0].r_ct: unknown key; did you mean r_cut?"),
        ("atoms = 'name Q'", "target.atoms: 'name Q' selects no atom"),
    ],
)
def test_its_keys_are_checked_like_any_other(tmp_path: Path, more: str, words: str) -> None:
    (tmp_path / OWN.name).write_text(OWN.read_text())  # beside the configuration
    done = refine(tmp_path, OWN.name, more)
    assert done.returncode == 2 and words in done.stderr
    assert "Traceback" not in done.stderr
