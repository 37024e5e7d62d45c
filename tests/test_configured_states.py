"""Configurations of several states and terms: what is read, built, and left behind."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from openmm_diffsim import Refinement, load_parameters
from openmm_diffsim.configuration.build import build_refinement
from openmm_diffsim.configuration.dynamics import DYNAMICS_KEYS
from openmm_diffsim.configuration.parameters import METHODS
from openmm_diffsim.configuration.potentials import PAIR_KINDS
from openmm_diffsim.configuration.section import Section
from openmm_diffsim.configuration.system import SYSTEM_KEYS
from openmm_diffsim.configuration.toml import parse_configuration
from openmm_diffsim.errors import ConfigurationError
from openmm_diffsim.observables import ENTRIES
from openmm_diffsim.potentials import flat_parameters, learned_parameters
from openmm_diffsim.report.tables import check_results, write_results
from openmm_diffsim.units import MOLAR_GAS_CONSTANT, UNIT_NAMES, ReducedUnits

R = np.linspace(0.02, 0.8, 40)
G = np.where(R > 0.3, 1 + np.exp(-(((R - 0.36) / 0.05) ** 2)), 0.0)

MIXTURE: dict[str, Any] = {
    "system": {"mass": [39.9, 83.8], "number_density": 15.0, "types": ["Ar", "Kr"]},
    "dynamics": {"temperature": 120.0, "timestep": 0.005, "platform": "Reference"},
    "state": [
        {"name": "x25", "particles": [20, 60]},
        {"name": "x75", "particles": [60, 20], "temperature": 130.0, "mass_density": 1.5},
    ],
    "potential": {"kind": "spline", "cutoff": 0.75, "r_min": 0.28, "knots": 20},
    "target": [
        {"state": "x25", "observable": "rdf", "atoms": "name Ar", "file": "g.csv"},
        {"state": "x75", "observable": "rdf", "atoms": "name Kr", "file": "g.csv"},
    ],
    "refine": {"steps": 400, "every": 10, "equilibration": 20, "rounds": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savetxt(tmp_path / "g.csv", np.stack([R, G, np.full(40, 0.02)], axis=1))
    return tmp_path


def changed(raw: dict[str, Any], **entries: Any) -> dict[str, Any]:
    """A copy with entries such as ``state__0__name="a"``."""
    raw = copy.deepcopy(raw)
    for path, value in entries.items():
        place: Any = raw
        *parents, last = path.split("__")
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place[name]
        if value is None:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return raw


def build(raw: dict[str, Any], folder: Path, trusted: bool = False) -> Refinement:
    return build_refinement(parse_configuration(raw, folder, trusted), [].append)


# State points -------------------------------------------------------------------------------------


def test_a_state_stands_over_the_defaults(folder: Path) -> None:
    made = parse_configuration(MIXTURE, folder)
    first, second = made.states
    assert (first.name, second.name) == ("x25", "x75")
    assert (first.dynamics.temperature, second.dynamics.temperature) == (120.0, 130.0)
    assert first.dynamics.timestep == second.dynamics.timestep == 0.005
    assert (first.system.counts, second.system.counts) == ((20, 60), (60, 20))
    assert first.system.number_density == 15.0
    mean = (60 * 39.9 + 20 * 83.8) / 80
    assert second.system.number_density == pytest.approx(1.5 * 602.214076 / mean)
    assert [target.states for target in made.targets] == [("x25",), ("x75",)]
    assert first.system.names == ("Ar", "Kr")


def test_without_states_there_is_one(folder: Path) -> None:
    raw = changed(MIXTURE, state=None, system__particles=[20, 60])
    for target in raw["target"]:
        del target["state"]
    made = parse_configuration(raw, folder)
    assert [state.name for state in made.states] == ["state0"]
    assert made.targets[0].states == ("state0",)


STATES_REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"state__0__temprature": 1.0}, "state[0].temprature", "did you mean temperature?"),
    ({"state__1__temperature": -1.0}, "state[1].temperature", "from 1e-06"),
    ({"dynamics__temperature": None}, "state[0].temperature", "missing"),
    ({"dynamics__timestep": "x"}, "dynamics.timestep", "expected a number"),
    ({"dynamics__colour": 1}, "dynamics.colour", "unknown key"),
    ({"state__1__name": "x25"}, "state[0].name", "a name of its own"),
    ({"state__1__name": "../x"}, "state[1].name", "letters, digits"),
    ({"state": []}, "state", "one [[state]] at least"),
    ({"state": {"name": "x"}}, "state", "double brackets"),
    ({"state__1__particles": [10, 20, 30]}, "system.mass", "a list of 3 numbers"),
    ({"state__1__particles": [-1, 20]}, "state[1].particles", "whole numbers"),
    ({"state__1__particles": [2, 2]}, "state[1].particles", "from 10 to"),
    ({"state__1__types": ["A", "A"]}, "state[1].types", "different names"),
    ({"target__0__state": "x"}, "target[0].state", "one of x25, x75"),
    ({"target__0__state": None}, "target[0].state", "there are several, x25, x75"),
    ({"target__0__states": ["x25"]}, "target[0].states", "got state as well"),
    ({"state__0__replicas": 0}, "state[0].replicas", "from 1 to"),
]


@pytest.mark.parametrize(("change", "key", "words"), STATES_REFUSED)
def test_a_state_that_cannot_be_is_refused_by_its_key(
    folder: Path, change: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(changed(MIXTURE, **change), folder)
    assert caught.value.key == key
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_all_states_have_one_potential_and_their_own_system(folder: Path) -> None:
    fit = build(MIXTURE, folder)
    points = [state.state_point for state in fit.states]
    assert [point.name for point in points] == ["x25", "x75"]
    assert all(point.potential is fit.potential for point in points)
    assert [point.temperature for point in points] == [120.0, 130.0]
    for point, counts in zip(points, ([20, 60], [60, 20]), strict=True):
        np.testing.assert_array_equal(np.bincount(point.pair_types()[0]), counts)
        system = point.simulation.system
        masses = [system.getParticleMass(i)._value for i in (0, 79)]
        assert masses == [39.9, 83.8]
    rdf = fit.targets[1].observable
    np.testing.assert_array_equal(rdf.atoms, np.arange(60, 80))


def test_a_state_that_nothing_is_measured_at_is_told(folder: Path) -> None:
    said: list[str] = []
    raw = changed(MIXTURE, target=[MIXTURE["target"][0]])
    fit = build_refinement(parse_configuration(raw, folder), said.append)
    assert len(fit.states) == 1
    assert any(text.startswith("x75: no target is of this state") for text in said)


# Terms --------------------------------------------------------------------------------------------


def test_each_pair_of_types_may_start_elsewhere(folder: Path) -> None:
    r = np.linspace(0.2, 0.75, 50)
    np.savetxt(folder / "u.csv", np.stack([r, 40 * (0.75 - r) ** 2], axis=1))
    pairs = [
        {"types": ["Kr", "Ar"], "file": "u.csv"},
        {"types": [1, 1], "initial": "lennard-jones", "sigma": 0.3, "epsilon": 0.5},
    ]
    fit = build(changed(MIXTURE, potential__pair=pairs), folder)
    u = fit.potential.energy([0.4, 0.6])
    np.testing.assert_allclose(u[1].tolist(), 40 * (0.75 - np.array([0.4, 0.6])) ** 2, rtol=2e-3)
    assert u[2, 0].item() == pytest.approx(2.0 * ((0.75) ** 12 - (0.75) ** 6), rel=0.02)
    own = {"kind": "lennard-jones", "cutoff": 0.75, "r_min": 0.28, "sigma": 0.34, "epsilon": 1.0}
    own["pair"] = [{"types": [0, 1], "epsilon": 1.3}]
    fit = build(changed(MIXTURE, potential=own), folder)
    assert fit.potential.epsilon.tolist() == [1.0, 1.3, 1.0]
    for pair, words in (
        ({"types": [0, 2]}, "there are 2"),
        ({"types": [0, 1], "sgima": 1}, "mean sigma?"),
        ({}, "missing"),
    ):
        with pytest.raises(ConfigurationError, match=r"potential\.pair\[0\]") as caught:
            parse_configuration(changed(MIXTURE, potential=own | {"pair": [pair]}), folder)
        assert words in str(caught.value)


def test_a_potential_may_depend_on_temperature(folder: Path) -> None:
    fit = build(changed(MIXTURE, potential__temperature_dependent=True), folder)
    pair = fit.potential
    assert not bool(pair.entropic.values.any())
    own = {"kind": "lennard-jones", "cutoff": 0.75, "r_min": 0.28, "sigma": 0.34, "epsilon": 1.0,
           "temperature_dependent": True, "entropic": {"epsilon": 0.001}}  # fmt: skip
    fit = build(changed(MIXTURE, potential=own), folder)
    u = [fit.potential.energy([0.4], kelvin)[0, 0].item() for kelvin in (0.0, 120.0)]
    assert u[1] / u[0] == pytest.approx(1 - 0.12)
    for change in ({"temperature_dependent": False}, {"kind": "spline"}, {"entropic": {"x": 1.0}}):
        with pytest.raises(ConfigurationError, match="entropic"):
            parse_configuration(changed(MIXTURE, potential=own | change), folder)


def test_what_is_known_beforehand_is_told_to_a_term(folder: Path) -> None:
    own = {"kind": "lennard-jones", "cutoff": 0.75, "r_min": 0.28, "sigma": 0.34, "epsilon": 1.0,
           "learn": ["epsilon"], "prior": {"epsilon": 0.1}, "roughness": 5.0}  # fmt: skip
    potential = build(changed(MIXTURE, potential=own), folder).potential
    assert [len(p) for p in learned_parameters(potential)] == [3]
    assert potential.own_prior["epsilon"][1].tolist() == [0.1] * 3
    assert potential.roughness == 5.0
    for change, key in (({"learn": ["x"]}, "learn"), ({"prior": {"x": 1.0}}, "prior")):
        with pytest.raises(ConfigurationError, match=f"potential.{key}: ") as caught:
            build(changed(MIXTURE, potential=own | change), folder)
        assert caught.value.key == f"potential.{key}"


CHAINS = np.arange(40).reshape(10, 4)


def melt(folder: Path, **more: Any) -> dict[str, Any]:
    """Chains of four beads without forces, and a term for pairs, bonds and angles."""
    system, topology = openmm.System(), app.Topology()
    system.setDefaultPeriodicBoxVectors(*(2.2 * np.eye(3)))
    topology.setPeriodicBoxVectors(2.2 * np.eye(3))
    chain = topology.addChain()
    for k in range(40):
        system.addParticle(40.0)
        name = "E" if k % 4 in (0, 3) else "M"
        topology.addAtom(name, None, topology.addResidue("MOL", chain))
    atoms = list(topology.atoms())
    for row in CHAINS.tolist():
        for i, j in pairwise(row):
            topology.addBond(atoms[i], atoms[j])
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(2)), axis=-1).reshape(10, 1, 2)
    beads = np.zeros((10, 4, 3))
    beads[..., :2] = 0.44 * grid * [1, 2.5] + 0.1
    beads[..., 2] = 0.38 * np.arange(4) + 0.05
    with open(folder / "melt.pdb", "w") as file:
        app.PDBFile.writeFile(topology, beads.reshape(-1, 3) * openmm.unit.nanometer, file)
    (folder / "melt.xml").write_text(openmm.XmlSerializer.serialize(system))
    q = np.linspace(0.301, 0.459, 80)
    bond = np.exp(-3000 * (q - 0.38) ** 2)
    for name in ("EM", "MM"):
        curve = np.stack([q, bond / (bond.sum() * (q[1] - q[0])), np.full(80, 0.1)], axis=1)
        np.savetxt(folder / f"{name}.csv", curve)
    theta = np.linspace(0.05, 3.1, 60)
    angle = np.sin(theta) * np.exp(-10 * (theta - 2.0) ** 2)
    angle /= angle.sum() * (theta[1] - theta[0])
    np.savetxt(folder / "angles.csv", np.stack([theta, angle, np.full(60, 0.05)], axis=1))
    ends = CHAINS[:, [[0, 1], [3, 2]]].reshape(-1, 2).tolist()
    return {
        "system": {"topology": "melt.pdb", "system": "melt.xml", "exclude_bonds": 2,
                   "types": {"E": "name E", "M": "name M"}},
        "dynamics": {"temperature": 300.0, "timestep": 0.005, "platform": "Reference"},
        "potential": [
            {"kind": "lennard-jones", "sigma": 0.35, "epsilon": 1.0, "cutoff": 0.9, "r_min": 0.3},
            {"kind": "bond", "r_min": 0.3, "r_max": 0.46, "knots": 20,
             "types": {"end": ["E", "M"], "middle": ["M", "M"]}},
            {"kind": "angle", "knots": 20},
        ],
        "target": [
            {"observable": "bonds", "file": "EM.csv", "bonds": ends},
            {"observable": "bonds", "file": "MM.csv", "bonds": CHAINS[:, 1:3].tolist()},
            {"observable": "angles", "file": "angles.csv", "triples": "bonded"},
        ],
        "refine": {"steps": 400, "every": 10, "equilibration": 20, "rounds": 1},
    } | more  # fmt: skip


def test_a_sum_of_pairs_bonds_and_angles(folder: Path) -> None:
    fit = build(melt(folder), folder)
    pair, bond, angle = fit.potential.addends()
    assert [term.name for term in (pair, bond, angle)] == ["lennard-jones", "bond", "angle"]
    assert (bond.n_types, angle.n_types, pair.n_types) == (2, 1, 2)
    point = fit.states[0].state_point
    counts = {name: [len(t) for t in of] for name, of in point.attached.tuples().items()}
    assert counts == {"bond": [20, 10], "angle": [20]}
    thermal = MOLAR_GAS_CONSTANT * 300.0
    u = bond.energy([0.36, 0.38])
    # w = -RT ln(p / r^2), the same for both types
    expected = thermal * (3000 * 0.02**2 + 2 * np.log(0.36 / 0.38))
    np.testing.assert_allclose((u[:, 0] - u[:, 1]).tolist(), expected, rtol=0.02)
    assert [len(pairs) for pairs in point.attached.exclusions()] == [50]  # 30 1-2 and 20 1-3


def test_files_of_a_sum_come_back_as_where_a_fit_begins(folder: Path) -> None:
    raw = melt(folder)
    fit = build(raw, folder).run(1, 400, 10, 20, progress=False)
    (out := folder / "out").mkdir()
    summary = write_results(fit, out, raw)
    names = {path.name for path in out.iterdir()}
    assert {"potential.csv", "bond.csv", "angle.csv", "bonds_0.csv", "bonds_1.csv", "angles_0.csv",
            "parameters.json", "figure.png", "system.xml", "state.xml"} <= names  # fmt: skip
    assert [term["tables"] for term in summary["terms"]] == [
        ["potential.csv"], ["bond.csv"], ["angle.csv"]
    ]  # fmt: skip
    header = (out / "bond.csv").read_text().splitlines()[0]
    assert header == "r_nm,u_kJ_mol_0,standard_error_0,u_kJ_mol_1,standard_error_1"
    again = changed(raw, potential__1__file="out/bond.csv", potential__2__file="out/angle.csv")
    old, new = (made.potential.addends()[1] for made in (fit, build(again, folder)))
    q = np.linspace(0.35, 0.41, 9)
    u = [(term.energy(q) - term.energy(q).mean(1, keepdim=True)).tolist() for term in (old, new)]
    np.testing.assert_allclose(u[0], u[1], atol=0.05)
    check_results(fit, out)


BONDED_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"potential__1__types": {"end": ["E"]}}, r"potential\[1\]\.types\.end: .*expected 2"),
    ({"potential__1__types": {"end": ["E", "X"]}}, r"potential\[1\]\.types\.end: .*E, M"),
    ({"potential__1__types": [0, 1]}, r"potential\[1\]\.types: .*one number for each"),
    ({"potential__1__r_max": 0.2}, r"potential\[1\]\.r_min: .*less than r_max"),
    ({"potential__1__name": "a", "potential__2__name": "a"}, r"potential\[1\]\.name: .*twice"),
    ({"potential__2__initial": "zeros"}, r"potential\[2\]\.initial: .*did you mean 'zero'"),
    ({"potential__1__types": {"all": ["E", "E"]}}, r"potential\[1\]\.types\.all: no bond"),
    ({"target__2": {"observable": "potential-energy", "value": 1.0, "uncertainty": 1.0}},
     r"potential\[2\]\.initial: no target is the distribution of the triples"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), BONDED_REFUSED)
def test_bonded_terms_that_cannot_be_are_refused(
    folder: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build(changed(melt(folder), **change), folder)


def test_code_of_a_network_runs_where_it_is_trusted_alone(folder: Path) -> None:
    (folder / "net.py").write_text(
        "import torch\n"
        "class Trap(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.k = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))\n"
        "    def forward(self, positions, box):\n"
        "        return self.k * (positions ** 2).sum()\n"
        "number = 3\n"
    )
    term = {"kind": "network", "module": "net.py:Trap"}
    raw = melt(folder, potential=term)
    raw["system"] = changed(raw["system"], types=None)
    raw["target"] = raw["target"][:1]  # nothing is bonded
    with pytest.raises(ConfigurationError, match=r"potential\.module: .*--trust"):
        build(raw, folder)
    assert dict(build(raw, folder, trusted=True).potential.named_parameters()).keys() == {
        "network.k"
    }
    for name in ("number", "nothing"):
        with pytest.raises(ConfigurationError, match=r"potential\.module: .*no torch module"):
            build(changed(raw, potential__module=f"net.py:{name}"), folder, trusted=True)


# Parameters of a System ---------------------------------------------------------------------------


def water(folder: Path, **more: Any) -> dict[str, Any]:
    field = app.ForceField("tip3p.xml")
    box = app.Modeller(app.Topology(), [])
    box.addSolvent(field, model="tip3p", numAdded=30)
    system = field.createSystem(
        box.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.45, rigidWater=False
    )
    with open(folder / "water.pdb", "w") as file:
        app.PDBFile.writeFile(box.topology, box.positions, file)
    (folder / "water.xml").write_text(openmm.XmlSerializer.serialize(system))
    return {
        "system": {"topology": "water.pdb", "system": "water.xml"},
        "dynamics": {"timestep": 0.0005, "platform": "Reference", "pressure": 1.0},
        "state": [{"name": "cold", "temperature": 298.0}, {"name": "hot", "temperature": 338.0}],
        "potential": {
            "kind": "parameters",
            "lennard_jones": [{"atoms": "name O", "bounds": {"sigma": [0.25, 0.4]}}],
            "charges": {"O": "name O", "H": "name H1 or name H2"},
            "bonds": {"force": "HarmonicBondForce", "learn": ["k"]},
            "angles": True,
            "prior": {"charges.free": 0.02},
        },
        "target": [
            {"state": "cold", "observable": "density", "value": 1.0, "uncertainty": 0.1},
            {"state": "hot", "observable": "density", "value": 0.98, "uncertainty": 0.1},
        ],
        "refine": {"steps": 200, "every": 10, "equilibration": 0, "rounds": 1},
    } | more


def test_parameters_of_a_system_are_learned_at_two_states(folder: Path) -> None:
    raw = water(folder)
    fit = build(raw, folder)
    names = fit.potential.by_name()
    assert {"lennard_jones.sigma", "charges.free", "bonds.k", "angles.k"} <= names.keys()
    assert fit.potential.numbers()["lennard_jones.sigma"][0] == pytest.approx(0.31507524)
    assert fit.potential.terms["lennard_jones"].sigma.bounds == {"": (0.25, 0.4)}
    assert not names["bonds.r0"].requires_grad
    fit.run(1, 200, 10, 0, progress=False)
    (out := folder / "out").mkdir()
    summary = write_results(fit, out, raw)
    written = {path.name for path in out.iterdir()}
    assert {"numbers.csv", "parameters.csv", "parameters.json", "hot_system.xml"} <= written
    assert not any(name.startswith("potential") for name in written)
    assert summary["final"]["wells"] == [] and summary["final"]["sampled_from_r_nm"] is None
    rows = (out / "numbers.csv").read_text().splitlines()
    assert (
        rows[0] == "number,value,standard_error"
        and "charges.q[H]" in (out / "numbers.csv").read_text()
    )
    states = [(s["name"], s["temperature_K"], s["pressure_bar"]) for s in summary["states"]]
    assert states == [("cold", 298.0, 1.0), ("hot", 338.0, 1.0)]
    assert [s["state"] for s in summary["final"]["scalars"]] == ["cold", "hot"]


PARAMETERS_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"potential": {"kind": "parameters"}}, r"potential\.kind: nothing would be learned"),
    ({"potential__charges": {"O": "name Q"}}, r"potential\.charges\.atoms: .*selects no atom"),
    ({"potential__angles": {"types": "classes"}}, r"potential\.angles\.types: needs force_field"),
    ({"potential__angles": {"sleect": [1]}}, r"potential\.angles\.sleect: .*mean select"),
    ({"potential__torsions": True}, r"potential\.torsions: "),
    ({"potential__force_field": ["../no.xml"]}, r"potential\.force_field: there is no file"),
    ({"potential__custom": {"select": [0]}}, r"potential\.custom\.names: missing"),
    ({"potential__lennard_jones": [{"bounds": {"sigma": [2, 1]}}]}, r"bounds\.sigma: .*low < high"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), PARAMETERS_REFUSED)
def test_parameters_that_cannot_be_learned_are_refused(
    folder: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build(changed(water(folder), **change), folder)


def test_bonds_are_tied_by_the_types_of_a_force_field(folder: Path) -> None:
    own = {"kind": "parameters", "force_field": ["tip3p.xml"],
           "bonds": [{"types": "types", "learn": ["k", "r0"]}],
           "angles": {"select": [["tip3p-H", "tip3p-O", "tip3p-H"]], "types": "types"}}  # fmt: skip
    potential = build(water(folder, potential=own), folder).potential
    assert [len(p) for p in learned_parameters(potential)] == [1] * 4
    (folder / "evil.xml").write_text("<ForceField><Script>raise SystemExit</Script></ForceField>")
    with pytest.raises(ConfigurationError, match=r"force_field: .*script.*--trust"):
        build(water(folder, potential=own | {"force_field": ["evil.xml"]}), folder)


# Reduced units ------------------------------------------------------------------------------------

ARGON = ReducedUnits(0.34, 0.996, 39.948)


def test_reduced_units_are_those_of_lennard_jones() -> None:
    assert set(UNIT_NAMES) <= set(ARGON._factors)
    assert ARGON.factor("temperature") == pytest.approx(119.79, rel=1e-3)
    assert ARGON.factor("time") == pytest.approx(2.1532, rel=1e-3)  # ps
    assert ARGON.factor("pressure") == pytest.approx(420.8, rel=1e-3)  # bar
    assert 0.845 * ARGON.factor("number_density") == pytest.approx(21.499, rel=1e-4)
    product = ARGON.factor("diffusion") / ARGON.factor("length") ** 2 * ARGON.factor("time")
    assert product == pytest.approx(1)


def reduced(**units: Any) -> dict[str, Any]:
    return {
        **units,
        "system": {"particles": 60, "number_density": 0.4, "mass": 1.0},
        "dynamics": {"temperature": 1.2, "timestep": 0.002, "friction": 2.0,
                     "platform": "Reference"},
        "potential": {"kind": "lennard-jones", "sigma": 1.0, "epsilon": 1.0, "cutoff": 2.5,
                      "r_min": 0.8, "prior": {"sigma": 0.03}},
        "target": [
            {"observable": "rdf", "file": "reduced.csv", "window": [0.5, 2.2]},
            {"observable": "pressure", "value": 0.5, "uncertainty": 0.1, "offset": 0.01},
            {"observable": "vacf", "file": "c.csv", "uncertainty": 0.1, "window": [0.0, 0.05]},
            {"observable": "pressure", "value": 200.0, "uncertainty": 10.0, "unit": "bar"},
        ],
        "refine": {"steps": 400, "every": 10, "equilibration": 20, "rounds": 1},
    }  # fmt: skip


TABLE = {"sigma": 0.34, "epsilon": 0.996, "mass": 39.948}


@pytest.mark.parametrize(
    "units", [{"units": "lennard-jones", **TABLE}, {"units": {"kind": "lennard-jones", **TABLE}}]
)
def test_a_file_in_reduced_units_means_the_same(folder: Path, units: dict[str, Any]) -> None:
    np.savetxt(folder / "reduced.csv", np.stack([R / 0.34, G, np.full(40, 0.02)], axis=1))
    t = np.arange(0, 0.051, 0.004)
    np.savetxt(folder / "c.csv", np.stack([t, 3.6 * np.exp(-t)], axis=1))
    raw = reduced(**units)
    made = parse_configuration(raw, folder)
    assert made.units == ARGON
    assert made.system.number_density == pytest.approx(0.4 / 0.34**3)
    assert (made.system.mass, made.potential.cutoff) == pytest.approx((39.948, 0.85))
    assert made.dynamics.temperature == pytest.approx(1.2 * 0.996 / MOLAR_GAS_CONSTANT)
    assert made.dynamics.timestep == pytest.approx(0.002 * ARGON.factor("time"))
    assert made.dynamics.friction == pytest.approx(2.0 / ARGON.factor("time"))
    fit = build(raw, folder)
    assert fit.potential.sigma.item() == pytest.approx(0.34)
    assert fit.potential.own_prior["sigma"][1].item() == pytest.approx(0.03 * 0.34)
    g, p, c, bar = fit.targets
    assert g.x is not None and c.x is not None
    inside = R[(R >= 0.17) & (R <= 2.2 * 0.34)]
    np.testing.assert_allclose(g.x, inside)
    assert p.values[0] == pytest.approx(0.5 * ARGON.factor("pressure"))
    assert p.measurement.offset == pytest.approx(0.01 * ARGON.factor("pressure"))
    assert c.values[0] == pytest.approx(3.6 * ARGON.factor("squared_velocity"))
    assert c.uncertainty[0] == pytest.approx(0.1 * ARGON.factor("squared_velocity"))
    assert bar.values[0] == 200.0
    assert c.x[-1] == pytest.approx(t[-1] * ARGON.factor("time"), rel=0.1)


def test_tables_are_written_in_reduced_units_too(folder: Path) -> None:
    np.savetxt(folder / "reduced.csv", np.stack([R / 0.34, G, np.full(40, 0.02)], axis=1))
    raw = reduced(units="lennard-jones", **TABLE)
    del raw["target"][1:]
    fit = build(raw, folder).run(1, 400, 10, 20, progress=False)
    (out := folder / "out").mkdir()
    write_results(fit, out, raw)
    plain, star = (np.loadtxt(out / f"potential{e}.csv", delimiter=",", skiprows=1)
                   for e in ("", "_reduced"))  # fmt: skip
    np.testing.assert_allclose(plain / [0.34, 0.996, 0.996], star)
    assert (out / "rdf_0_reduced.csv").read_text().startswith("r_reduced,g_target,g_model")
    check_results(fit, out)


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ({"units": "metal"}, r"^units: got 'metal', expected one of lennard-jones"),
        ({"units": "lennard-jones", "sigma": 0.34}, "^epsilon: missing"),
        ({"units": {"kind": "lennard-jones", **TABLE, "epsilon": 0.0}}, r"units\.epsilon: .*above"),
        ({"units": {**TABLE}}, r"units\.kind: missing"),
        ({"sigma": 0.34}, "^sigma: unknown key"),
    ],
)
def test_units_that_are_none_are_refused(folder: Path, units: Any, words: str) -> None:
    np.savetxt(folder / "reduced.csv", np.stack([R, G, np.full(40, 0.02)], axis=1))
    np.savetxt(folder / "c.csv", np.stack([R, G], axis=1))
    with pytest.raises(ConfigurationError, match=words):
        parse_configuration(reduced(**units), folder)


# Methods and workers ------------------------------------------------------------------------------


def test_options_of_every_method_are_read(folder: Path) -> None:
    given = {
        "ibi": {"damping": 0.5, "least_g": 0.1},
        "relative-entropy": {"roughness": 50.0},
        "adam": {"learning_rate": 0.1, "steps": 3, "least_overlap": 0.6},
    }
    for method, options in given.items():
        key = method.replace("-", "_")
        raw = changed(MIXTURE, refine__method=method)
        made = parse_configuration(changed(raw, **{f"refine__{key}": options}), folder)
        assert made.refine.options == options
        with pytest.raises(ConfigurationError, match=rf"refine\.{key}: is for method = '{method}'"):
            parse_configuration(changed(MIXTURE, **{f"refine__{key}": options}), folder)
        with pytest.raises(ConfigurationError, match=rf"refine\.{key}\.x: unknown key"):
            parse_configuration(changed(raw, **{f"refine__{key}": {"x": 1}}), folder)
    raw = changed(MIXTURE, refine__method="adam", refine__adam=given["adam"])
    method = build(raw, folder).method
    assert (method.steps, method.least_overlap) == (3, 0.6)  # type: ignore[attr-defined]
    assert method.identity()["options"]["lr"] == 0.1  # type: ignore[attr-defined]


def test_where_state_points_are_sampled_is_read(folder: Path) -> None:
    made = parse_configuration(
        changed(MIXTURE, refine={"executor": "processes", "workers": 2, "replicas": 3,
                                 "staleness": 1}, state__0__replicas=2), folder
    )  # fmt: skip
    refine = made.refine
    assert (refine.executor, refine.workers, refine.replicas) == ("processes", 2, 3)
    assert refine.staleness == 1 and made.states[0].replicas == 2
    assert parse_configuration(
        changed(MIXTURE, refine={"executor": "tcp://host:8786"}), folder
    ).refine.executor
    for key, value in (("executor", "procesess"), ("workers", 0), ("replicas", 0)):
        with pytest.raises(ConfigurationError, match=rf"refine\.{key}: got"):
            parse_configuration(changed(MIXTURE, refine={key: value}), folder)


# Results ------------------------------------------------------------------------------------------


def test_files_of_several_states_have_their_names(folder: Path) -> None:
    raw = changed(MIXTURE, potential__temperature_dependent=True)
    fit = build(raw, folder).run(1, 400, 10, 20, progress=False)
    (out := folder / "out").mkdir()
    check_results(fit, out)
    summary = write_results(fit, out, raw)
    names = {path.name for path in out.iterdir()}
    expected = {"rdf_x25_0.csv", "rdf_x75_0.csv", "potential.csv", "potential_x75.csv"}
    expected |= {"system.xml", "state.xml", "x25_system.xml", "x75_state.xml", "parameters.json"}
    assert expected <= names
    assert [s["name"] for s in summary["states"]] == ["x25", "x75"]
    check_results(fit, out)
    other = build(raw, folder)
    load_parameters(other.potential, out)
    assert torch.equal(flat_parameters(other.potential), flat_parameters(fit.potential))
    assert torch.equal(
        other.potential.spline_coefficients(140.0), fit.potential.spline_coefficients(140.0)
    )
    for change, name in (
        ({"potential__knots": 21}, "structure"),
        ({"potential__temperature_dependent": False}, "kind"),
    ):
        with pytest.raises(ConfigurationError, match=f"of another form: its {name} is"):
            load_parameters(build(changed(raw, **change), folder).potential, out)
    (out / "parameters.json").write_text(json.dumps({"form": {}}))
    with pytest.raises(ConfigurationError, match=r"parameters\.json: has not the parts"):
        load_parameters(other.potential, out)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_parameters(other.potential, folder)


def test_a_configuration_begins_with_what_a_fit_has_learned(folder: Path) -> None:
    raw = changed(MIXTURE, potential__r_min=None)
    fit = build(raw, folder).run(1, 400, 10, 20, progress=False)
    (out := folder / "out").mkdir()
    write_results(fit, out, raw)
    density = {"observable": "potential-energy", "value": -1.0, "uncertainty": 1.0}
    state = {"name": "x50", "particles": [40, 40]}
    other = changed(raw, state=[state], target=[density])
    made = parse_configuration(other, folder, learned=out)  # without a g(r)
    again = build_refinement(made, [].append)
    assert again.potential.basis == fit.potential.basis
    assert torch.equal(flat_parameters(again.potential), flat_parameters(fit.potential))
    two = changed(other, potential=[raw["potential"], {"kind": "spline", "cutoff": 0.7}])
    with pytest.raises(ConfigurationError, match=r"has 2 terms, but that in .*out 1"):
        parse_configuration(two, folder, learned=out)
    sum_raw = melt(folder)
    fit = build(sum_raw, folder).run(1, 400, 10, 20, progress=False)
    (out := folder / "sum").mkdir()
    write_results(fit, out, sum_raw)
    del sum_raw["target"][1:]
    again = build_refinement(parse_configuration(sum_raw, folder, learned=out), [].append)
    assert torch.equal(flat_parameters(again.potential), flat_parameters(fit.potential))


# The reference of all keys ------------------------------------------------------------------------

_NAMED_BY_USERS = ("potential.prior", "potential.entropic")
REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"


PLAIN = {"kind": "lennard-jones", "cutoff": 0.7, "r_min": 0.3, "sigma": 0.3, "epsilon": 1.0}


def every_section(folder: Path) -> list[dict[str, Any]]:
    """Configurations that have each kind of state, term, target and method among them."""
    terms: list[dict[str, Any]] = [
        PLAIN | {"kind": kind, "pair": [{"types": [0, 1]}], "temperature_dependent": True}
        for kind in PAIR_KINDS
    ]  # fmt: skip
    for term in terms:
        for key in {"sigma", "epsilon"} - set(PAIR_KINDS[term["kind"]].parameters):
            del term[key]
    calls = {m: {"names": ["k"]} if m in ("custom", "global_parameters") else True for m in METHODS}
    tables = {m: {} if v is True else v for m, v in calls.items()}
    (folder / "net.py").write_text("def make(): ...\n")
    for name in ("c.csv", "reduced.csv"):
        (folder / name).write_text("0 0\n")
    terms += [{"kind": "bond", "r_min": 0.3, "r_max": 0.5}, {"kind": "angle"}, {"kind": "dihedral"}]
    terms += [{"kind": "parameters", **tables}, {"kind": "network", "module": "net.py:make"}]
    raws = [changed(MIXTURE, potential=terms)]
    own = {"system": {"topology": "g.csv", "system": "g.csv"}, "potential": PLAIN}
    for entry, kind in ENTRIES.items():
        value = [1.0] * kind.n_values if kind.rules is None and kind.n_values > 1 else 1.0
        given = {"value": value, "uncertainty": 1.0, "length": 1.0}
        if kind.rules is not None:
            given = {"file": "g.csv", "r_max": 0.3}
        asked = changed(MIXTURE, **own, target=[{"observable": entry, **given}])
        raws.append(changed(asked, state=None))
    for method in ("ibi", "relative-entropy", "adam", "gauss-newton"):
        options = {"method": method, method.replace("-", "_"): {}}
        raws.append(changed(MIXTURE, refine=options))
    return [*raws, reduced(units="lennard-jones", **TABLE)]


def asked_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """By section, all keys that the parser asks for."""
    asked: dict[str, set[str]] = {}

    def known(self: Section, key: str) -> None:
        self.known.append(key)
        name = re.sub(r"\[\d+\]", "", self.name)
        if name not in _NAMED_BY_USERS:
            root, _, rest = name.partition(".")
            asked.setdefault(root, set()).add(f"{rest}.{key}".strip("."))

    monkeypatch.setattr(Section, "asked", known)
    for raw in every_section(folder):
        with contextlib.suppress(ConfigurationError):  # of keys that are not for all kinds
            parse_configuration(raw, folder, trusted=True)
    asked["state"] -= {*SYSTEM_KEYS, *DYNAMICS_KEYS}
    methods = re.compile(rf"({'|'.join(METHODS)})(?=\.)")
    asked["potential"] = {methods.sub("", key) for key in asked["potential"]}
    return asked


def documented_keys() -> dict[str, set[str]]:
    """By section, the keys in the first column of the tables of the reference."""
    found: dict[str, set[str]] = {}
    root = ""
    for line in REFERENCE.read_text().splitlines():
        if line.startswith("## "):
            named = re.search(r"`\[*(\w+)\]*`", line)
            root = named.group(1) if named else ""  # of the whole file
        elif line.startswith("| `"):
            first = line.split("|")[1]
            found.setdefault(root, set()).update(re.findall(r"`([\w.]+)`", first))
    return found


def test_the_reference_has_every_key_and_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, documented = asked_keys(folder, monkeypatch), documented_keys()
    wrong = {
        root: sorted(asked.get(root, set()) ^ documented.get(root, set()))
        for root in asked.keys() | documented.keys()
    }
    assert {root: keys for root, keys in wrong.items() if keys} == {}
