"""The configuration: what is accepted, and that every refusal names its key."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import openmm_diffsim
from openmm_diffsim import GaussNewtonOptions
from openmm_diffsim.configuration.measured import build_target
from openmm_diffsim.configuration.potentials import PAIR_KINDS
from openmm_diffsim.configuration.toml import Configuration, parse_configuration, read_configuration
from openmm_diffsim.errors import ConfigurationError, TargetError
from openmm_diffsim.limits import LIMITS

ISSUE_EXAMPLE: dict[str, Any] = {
    "system": {"particles": 500, "number_density": 21.5, "mass": 39.948},
    "dynamics": {"temperature": 85.0, "timestep": 0.005, "friction": 1.0, "platform": "CPU"},
    "potential": {
        "kind": "spline",
        "r_min": 0.28,
        "cutoff": 0.85,
        "knots": 60,
        "initial": "boltzmann-inversion",
    },
    "target": [
        {
            "observable": "rdf",
            "file": "g.csv",
            "length_unit": "angstrom",
            "uncertainty": 0.02,
        },
        {"observable": "pressure", "value": 1.0, "uncertainty": 50.0},
    ],
    "refine": {
        "method": "gauss-newton",
        "rounds": 15,
        "equilibration": 1000,
        "steps": 5000,
        "every": 50,
        "seed": 1,
        "output": "argon",
    },
}

_DELETE = object()
PACKAGE = Path(openmm_diffsim.__file__).parent
SOURCES = "".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("g.csv", "u.csv", "box.pdb", "system.xml"):
        (tmp_path / name).write_text("0 0\n")
    return tmp_path


def changed(folder: Path, **entries: Any) -> Configuration:
    """The example with entries such as ``dynamics__platform="CUDA"`` set or deleted."""
    raw = copy.deepcopy(ISSUE_EXAMPLE)
    for path, value in entries.items():
        place: Any = raw
        *parents, last = path.split("__")
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place[name]
        if value is _DELETE:
            del place[last]
        else:
            place[last] = value
    return parse_configuration(raw, folder)


def test_the_example_is_read_in_full(folder: Path) -> None:
    made = changed(folder)
    assert made.system.particles == 500
    assert made.system.number_density == 21.5
    assert made.dynamics.temperature == 85.0
    assert made.potential.initial == "boltzmann-inversion"
    assert [t.observable.entry for t in made.targets] == ["rdf", "pressure"]
    assert made.targets[0].file == folder / "g.csv"
    assert made.refine.output == Path("argon")


OPTIONS = {field.name: field.default for field in fields(GaussNewtonOptions)}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_gauss_newton_is_read(folder: Path, name: str) -> None:
    default = OPTIONS[name]
    value = not default if isinstance(default, bool) else 2 * default
    found = changed(folder, refine__gauss_newton={name: value}).refine.gauss_newton
    assert found == replace(GaussNewtonOptions(), **{name: value}) != GaussNewtonOptions()
    assert changed(folder).refine.gauss_newton == GaussNewtonOptions()
    wrong: Any = 7 if isinstance(default, bool) else -7
    with pytest.raises(ConfigurationError, match=rf"refine\.gauss_newton\.{name}: got"):
        changed(folder, refine__gauss_newton={name: wrong})
    with pytest.raises(TargetError, match=f"^{name}: got"):
        GaussNewtonOptions(**{name: wrong})


THERMODYNAMIC = [
    ({"observable": "density", "value": 997.0, "unit": "kg/m3"}, 0.997, "g/cm^3"),
    ({"observable": "density", "value": 0.997}, 0.997, "g/cm^3"),
    ({"observable": "potential-energy", "value": -10.0, "unit": "kcal/mol"}, -41.84, "kJ/mol"),
    ({"observable": "enthalpy", "value": -40.0, "n": 3}, -40.0, "kJ/mol"),
    ({"observable": "heat-of-vaporization", "value": 44.0, "correction": -5.2}, 44.0, "kJ/mol"),
    ({"observable": "heat-capacity", "value": 18.0, "unit": "cal/mol/K"}, 75.312, "J/mol/K"),
    ({"observable": "heat-capacity", "at": "volume", "value": 74.0}, 74.0, "J/mol/K"),
    ({"observable": "heat-capacity", "value": 4.18, "unit": "J/g/K"}, 4.18, "J/g/K"),
    ({"observable": "specific-heat-capacity", "value": 4180.0, "unit": "J/kg/K"}, 4.18, "J/g/K"),
    ({"observable": "compressibility", "value": 0.45, "unit": "1/GPa"}, 4.5e-5, "1/bar"),
    ({"observable": "thermal-expansion", "value": 2.6e-4}, 2.6e-4, "1/K"),
    ({"observable": "dielectric-constant", "value": 78.4, "background": 1.8}, 78.4, ""),
    ({"observable": "surface-tension", "value": 0.072, "unit": "N/m"}, 72.0, "mN/m"),
    ({"observable": "pressure", "value": 0.1, "unit": "MPa"}, 1.0, "bar"),
    ({"observable": "density", "value": 0.997, "unit": "g/cm^3"}, 0.997, "g/cm^3"),
    ({"observable": "potential-energy", "value": -4600.0, "unit": "J/mol"}, -4.6, "kJ/mol"),
    ({"observable": "thermal-expansion", "value": 2.6e-4, "unit": "1/K"}, 2.6e-4, "1/K"),
    ({"observable": "volume", "value": 4.2, "unit": "nm3"}, 4.2, "nm^3"),
]


@pytest.mark.parametrize(("entry", "value", "unit"), THERMODYNAMIC)
def test_a_value_may_be_in_another_unit(
    folder: Path, entry: dict[str, Any], value: float, unit: str
) -> None:
    given = {**entry, "uncertainty": 0.1 * abs(entry["value"]), "offset": 0.2 * abs(entry["value"])}
    made = changed(folder, target=[ISSUE_EXAMPLE["target"][0], given]).targets[1]
    observable = made.observable.from_settings(dict(made.settings), None, None)  # type: ignore[arg-type]
    assert observable.unit == unit
    assert made.factor * made.value == pytest.approx(value)  # type: ignore[operator]
    point: Any = SimpleNamespace(
        check_observable=lambda o: None,
        pressure=None if entry.get("at") == "volume" else 1.0,
        timestep=0.002,
        temperature=300.0,
    )
    target = build_target(1, point, made, observable, None)
    assert target.values[0] == pytest.approx(value)
    assert target.uncertainty[0] == pytest.approx(0.1 * abs(value))
    assert target.measurement.offset == pytest.approx(0.2 * abs(value))


def test_the_pressure_along_each_axis_is_a_list(folder: Path) -> None:
    given = {"observable": "pressure-tensor", "value": [1.0, 2.0, 3.0], "uncertainty": 50.0}
    known = ISSUE_EXAMPLE["target"][0]
    made = changed(folder, target=[known, given | {"unit": "MPa"}]).targets[1]
    point: Any = SimpleNamespace(
        check_observable=lambda o: None, pressure=None, timestep=0.002, temperature=300.0
    )
    target = build_target(1, point, made, made.observable(), None)
    np.testing.assert_allclose(target.values, [10.0, 20.0, 30.0])
    np.testing.assert_allclose(target.uncertainty, 500.0)
    for wrong in (1.0, [1.0, 2.0], [1.0, "2", 3.0]):
        with pytest.raises(ConfigurationError, match=r"target\[1\]\.value: "):
            changed(folder, target=[known, given | {"value": wrong}])


def test_what_a_state_point_cannot_tell_is_refused_by_its_key(folder: Path) -> None:
    given = {"observable": "density", "value": 1.0, "uncertainty": 0.1}
    made = changed(folder, target=[ISSUE_EXAMPLE["target"][0], given])
    point: Any = SimpleNamespace(
        check_observable=lambda o: None, pressure=None, timestep=0.002, temperature=300.0
    )
    with pytest.raises(TargetError, match=r"target\[1\]\.observable: Density: .*barostat") as said:
        build_target(1, point, made.targets[1], made.targets[1].observable(), None)
    assert said.value.key == "target[1].observable"


def test_mass_density_becomes_number_density(folder: Path) -> None:
    made = changed(folder, system__number_density=_DELETE, system__mass_density=1.417)
    assert made.system.number_density == pytest.approx(1.417 / 39.948 * 602.214076, rel=1e-9)


def test_own_system_is_read(folder: Path) -> None:
    own = {"topology": "box.pdb", "system": "system.xml", "atoms": "name O"}
    made = changed(folder, system=own)
    assert made.system.topology == folder / "box.pdb"
    assert made.system.particles is None


VACF = {"observable": "vacf", "file": "g.csv", "window": [0.0, 0.5], "uncertainty": 1e-3}
DIFFUSION = {"observable": "diffusion", "value": 2.4e-3, "uncertainty": 1e-4, "length": 1.0}


def test_dynamic_targets_have_their_defaults(folder: Path) -> None:
    made = changed(folder, target=[*ISSUE_EXAMPLE["target"], dict(VACF), dict(DIFFUSION)])
    vacf, diffusion = made.targets[2:]
    assert (vacf.file, vacf.window, vacf.uncertainty) == (folder / "g.csv", (0.0, 0.5), 1e-3)
    assert diffusion.value == 2.4e-3
    assert (diffusion.settings["length"], diffusion.settings["method"]) == (1.0, "green-kubo")
    for target in (vacf, diffusion):
        own = target.settings
        assert (own["integrator"], own["segments_every"], own["atoms"]) == ("simulation", 5, None)


def test_dynamic_targets_are_read_in_full(folder: Path) -> None:
    more = {"integrator": "nve", "segments_every": 2, "atoms": "name O", "weight": 0.5}
    made = changed(
        folder,
        target=[
            ISSUE_EXAMPLE["target"][0],
            VACF | more,
            DIFFUSION | more | {"method": "einstein"},
        ],
    )
    for target in made.targets[1:]:
        own = target.settings
        assert (own["integrator"], own["segments_every"]) == ("nve", 2)
        assert (own["atoms"], target.weight) == ("name O", 0.5)
    assert made.targets[2].settings["method"] == "einstein"


ANGLES = {"observable": "angles", "file": "g.csv", "r_max": 0.35, "uncertainty": 0.02}


def test_angles_are_read_in_full(folder: Path) -> None:
    plain = changed(folder, target=[*ISSUE_EXAMPLE["target"], dict(ANGLES)]).targets[2]
    assert plain.file == folder / "g.csv"
    assert {key: v for key, v in plain.settings.items() if v is not None} == {
        "r_max": 0.35,
        "bins": 60,
    }
    assert (plain.unit, plain.window, plain.noise) == ("rad", None, "auto")
    more = {"bins": 36, "angle_unit": "degree", "window": [0.5, 2.5], "noise": "independent"}
    full = changed(
        folder, target=[ISSUE_EXAMPLE["target"][0], ANGLES | more | {"atoms": "name O"}]
    ).targets[1]
    assert (full.settings["bins"], full.unit, full.window) == (36, "degree", (0.5, 2.5))
    assert (full.noise, full.settings["atoms"]) == ("independent", "name O")
    assert (plain.columns, plain.block, plain.as_it_is) == (None, None, False)
    said = {"columns": [1, 3], "block": -1, "as_it_is": True}
    told = changed(folder, target=[ISSUE_EXAMPLE["target"][0] | said]).targets[0]
    assert (told.columns, told.block, told.as_it_is) == ((1, 3), -1, True)


def without(section: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name != key}


SECTIONS_REFUSED = [
    (without(ANGLES, "r_max"), "r_max", "missing"),
    (without(ANGLES, "file"), "file", "missing"),
    (ANGLES | {"r_max": -0.3}, "r_max", "from 0.001 to"),
    (ANGLES | {"bins": 4}, "bins", "from 8 to 4000"),
    (ANGLES | {"angle_unit": "deg"}, "angle_unit", "one of rad, degree; did you mean 'degree'?"),
    (ANGLES | {"window": [2.0, 1.0]}, "window", "[low, high] in rad"),
    (ANGLES | {"length_unit": "nm"}, "length_unit", "unknown key"),
    (ANGLES | {"columns": [0, 1]}, "columns", "whole numbers from 1 on, as [1, 2]"),
    (ANGLES | {"columns": 2}, "columns", "whole numbers from 1 on"),
    (ANGLES | {"block": "last"}, "block", "expected a whole number"),
    (ANGLES | {"as_it_is": "yes"}, "as_it_is", "expected true or false"),
    (ANGLES | {"observable": "angle"}, "observable", "did you mean 'angles'?"),
    (VACF | {"winodw": [0, 1]}, "winodw", "did you mean window?"),
    (VACF | {"integrator": "nvt"}, "integrator", "one of simulation, nve; did you mean 'nve'?"),
    (VACF | {"segments_every": 0}, "segments_every", "from 1 to"),
    (VACF | {"window": [0.5, 0.1]}, "window", "[low, high] in ps"),
    (VACF | {"file": "absent.csv"}, "file", "there is no file"),
    (VACF | {"length_unit": "nm"}, "length_unit", "unknown key"),
    (VACF | {"value": 1.0}, "value", "unknown key"),
    (without(VACF, "file"), "file", "missing"),
    (DIFFUSION | {"method": "green-kub"}, "method", "did you mean 'green-kubo'?"),
    (DIFFUSION | {"length": 0.0}, "length", "from 1e-06 to"),
    (DIFFUSION | {"value": -1.0}, "value", "above 0"),
    (DIFFUSION | {"window": [0.0, 1.0]}, "window", "unknown key"),
    (without(DIFFUSION, "uncertainty"), "uncertainty", "needs its uncertainty (nm^2/ps)"),
    (without(DIFFUSION, "length"), "length", "missing"),
    (without(DIFFUSION, "value"), "value", "missing"),
    (VACF | {"observable": "vcaf"}, "observable", "did you mean 'vacf'?"),
]


@pytest.mark.parametrize(
    ("section", "key", "words"), SECTIONS_REFUSED, ids=[row[1] for row in SECTIONS_REFUSED]
)
def test_refusal_of_a_target_names_the_key(
    folder: Path, section: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        changed(folder, target=[ISSUE_EXAMPLE["target"][0], section])
    assert caught.value.key == f"target[1].{key}"
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_without_an_rdf_dynamics_needs_a_start(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"potential\.initial: without an rdf target"):
        changed(folder, target=[VACF])
    start = {"kind": "lennard-jones", "sigma": 0.34, "epsilon": 1.0, "cutoff": 0.85, "r_min": 0.28}
    assert changed(folder, target=[VACF], potential=start).potential.initial == "parameters"


REFUSED = [
    ({"dynamics__temprature": 85.0}, "dynamics.temprature", "did you mean temperature?"),
    ({"frobnicate": {}}, "frobnicate", "unknown key"),
    ({"target__0__color": "red"}, "target[0].color", "unknown key"),
    ({"dynamics__temperature": _DELETE}, "dynamics.temperature", "missing"),
    ({"dynamics__temperature": -5}, "dynamics.temperature", "from 1e-06 to"),
    ({"dynamics__temperature": "85"}, "dynamics.temperature", "expected a number"),
    (
        {"dynamics__temperature": float("nan")},
        "dynamics.temperature",
        "got nan, expected",
    ),
    ({"dynamics__timestep": 5.0}, "dynamics.timestep", "in ps (5 fs are 0.005)"),
    ({"dynamics__timestep": 0.0}, "dynamics.timestep", "in ps (5 fs are 0.005)"),
    ({"dynamics__threads": 0}, "dynamics.threads", "from 1 to 1024"),
    ({"system__particles": 3}, "system.particles", "from 10 to"),
    ({"system__particles": 500.0}, "system.particles", "whole number"),
    ({"system__mass_density": 1.4}, "system.number_density", "not both"),
    ({"system__number_density": _DELETE}, "system.number_density", "either"),
    ({"potential__kind": "splin"}, "potential.kind", "did you mean 'spline'?"),
    ({"potential__r_min": 0.9}, "potential.r_min", "less than cutoff"),
    ({"potential__knots": 2}, "potential.knots", "from 6 to 2000"),
    ({"potential__initial": "lennard-jones"}, "potential.sigma", "needs sigma"),
    ({"potential__initial": "parameters"}, "potential.initial", "no parameters"),
    ({"potential__initial": "table"}, "potential.file", "needs file"),
    ({"potential__depth": 1.0}, "potential.depth", "unknown key"),
    ({"target": {}}, "target", "double brackets"),
    ({"target": []}, "potential.initial", "without an rdf target"),
    ({"target__0__file": "absent.csv"}, "target[0].file", "there is no file"),
    ({"target__0__length_unit": "inch"}, "target[0].length_unit", "one of nm, angstrom"),
    ({"target__0__uncertainty": 0}, "target[0].uncertainty", "from 1e-12 to"),
    ({"target__0__window": [0.5, 0.2]}, "target[0].window", "low < high"),
    ({"target__1__uncertainty": _DELETE}, "target[1].uncertainty", "needs its uncertainty"),
    ({"target__1__file": "g.csv"}, "target[1].file", "unknown key"),
    ({"target__1__unit": "psi"}, "target[1].unit", "one of bar, atm, kPa"),
    ({"target__1__n": 5}, "target[1].n", "unknown key"),
    (
        {"target__1__unit": "atm", "target__1__covariance": "g.csv"},
        "target[1].unit",
        "got 'atm', but covariance is in bar",
    ),
    ({"dynamics__pressure": 1e9}, "dynamics.pressure", "in bar"),
    ({"refine__method": "newton"}, "refine.method", "expected one of"),
    ({"refine__rounds": 0}, "refine.rounds", "from 1 to 10000"),
    ({"refine__steps": 400}, "refine.steps", "only 8 frames"),
    ({"refine__seed": True}, "refine.seed", "whole number"),
    ({"refine": _DELETE}, "refine", "missing"),
    ({"refine__gauss_newton": {"rough": 2.0}}, "refine.gauss_newton.rough", "mean roughness?"),
    ({"refine__gauss_newton": {"roughness": 0}}, "refine.gauss_newton.roughness", "from 1e-09"),
    ({"refine__gauss_newton": {"theory": 1}}, "refine.gauss_newton.theory", "true or false"),
    (
        {"refine__gauss_newton": {"network_steps": 2.5}},
        "refine.gauss_newton.network_steps",
        "whole number",
    ),
    ({"refine__gauss_newton": 3}, "refine.gauss_newton", "expected a table"),
    (
        {"refine__method": "ibi", "refine__gauss_newton": {}},
        "refine.gauss_newton",
        "is for method = 'gauss-newton', got 'ibi'",
    ),
    ({"refine__seed": 2**31}, "refine.seed", "OpenMM takes 32 bits"),
    ({"refine__seed": 16**9999}, "refine.seed", "a number of thousands of digits"),
    ({"refine__rounds": 10**9}, "refine.rounds", "all frames of all rounds are kept"),
    ({"potential__cutoff": 1e300}, "potential.cutoff", "from 0.001 to"),
    ({"potential__knots": 10**9}, "potential.knots", "the square of it"),
    ({"dynamics__threads": 10**6}, "dynamics.threads", "one for each core"),
    ({"dynamics__platform": "C\0"}, "dynamics.platform", "text of one line"),
    ({"target__0__window": [0.3, 1e300]}, "target[0].window", "low < high"),
    ({"target__0__file": "x" * 5000}, "target[0].file", "there is no file"),
    ({"target__0__observable": "y" * 5000}, "target[0].observable", "yyy..."),
]


@pytest.mark.parametrize(("entries", "key", "words"), REFUSED, ids=[row[1] for row in REFUSED])
def test_refusal_names_the_key(folder: Path, entries: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        changed(folder, **entries)
    assert caught.value.key == key
    assert key in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


NO_TOML = ["[system", "\x00", "a = 1\na = 2\n", "a = 1" + "0" * 5000, "a = " + "[" * 9999]


@pytest.mark.parametrize("text", NO_TOML, ids=lambda text: text[:9])
def test_broken_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fit.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"fit\.toml: is not valid TOML"):
        read_configuration(path)


def test_a_mark_of_utf_8_before_a_toml_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "fit.toml"
    path.write_bytes(b"\xef\xbb\xbf[systems]\n")
    with pytest.raises(ConfigurationError, match="missing") as caught:
        read_configuration(path)
    assert caught.value.key == "system"  # what it lacks, not its first letter


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_configuration(tmp_path / "absent.toml")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match="cannot be read: it is a device or a pipe"):
            read_configuration(path)
    (tmp_path / "long.toml").write_text("#" * 2**20 + "\n")
    with pytest.raises(ConfigurationError, match="in all 1048577 bytes, expected at most 1048576"):
        read_configuration(tmp_path / "long.toml")


def test_every_number_of_a_configuration_has_a_range_of_its_own() -> None:
    asked = set(re.findall(r'section\.(?:number|integer)\(\s*"(\w+)"', SOURCES))
    parameters = {name for kind in PAIR_KINDS.values() for name in kind.parameters}
    options = {name for name, value in OPTIONS.items() if not isinstance(value, bool)}
    assert len(asked) > 20 and asked | parameters | options <= LIMITS.keys()


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_shipped_configurations_are_valid(name: str) -> None:
    try:
        made = read_configuration(EXAMPLES / name)
    except ConfigurationError as error:
        if "there is no file" in str(error) and "shared" in str(error):
            pytest.skip(f"public data are not here: {error}")
        raise
    assert made.states and made.terms and made.targets


def test_a_configuration_of_others_runs_no_code_and_writes_nowhere_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "own.py").write_text("raise SystemExit('ran')")
    (folder / "link").symlink_to(folder.parent)
    for name in ("own.py:Own", "os.path:Own"):
        with pytest.raises(ConfigurationError, match=r"target\[0\].observable: .*code.*--trust"):
            changed(folder, target__0__observable=name)
    for place in ("../out", str(folder.parent), "a/../../b", "link/out"):
        with pytest.raises(ConfigurationError, match=r"refine.output: got .*--output.*--trust"):
            changed(folder, refine__output=place)
    raw = copy.deepcopy(ISSUE_EXAMPLE)
    raw["refine"]["output"] = "../out"
    assert parse_configuration(raw, folder, trusted=True).refine.output == Path("../out")
