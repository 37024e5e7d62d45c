"""A System of the user's own in a configuration: its box, its types, which pairs are left out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit
from systems import argon, context_of, empty_system, langevin, lattice, simulate, topology

from openmm_diffsim import LennardJones, Refinement, StatePoint, cli
from openmm_diffsim.configuration.build import build_refinement
from openmm_diffsim.configuration.toml import parse_configuration
from openmm_diffsim.errors import ConfigurationError
from openmm_diffsim.io.trajectories import topology_of
from openmm_diffsim.report.tables import write_results

Array = NDArray[np.float64]

N, SIDE = 64, 1.9
R = np.arange(0.2, 0.85, 0.02)
TRICLINIC = np.array([[2.2, 0, 0], [0.6, 2.1, 0], [-0.5, 0.4, 2.3]])


def written(
    folder: Path,
    pdb: Array | None,
    system_box: Array | None,
    state_box: Array | None = None,
    bonds: int = 0,
) -> dict[str, Any]:
    """The files of a fluid, and a configuration that names them; the positions fill ``pdb``."""
    top = topology(N)
    system = openmm.System()
    for _ in range(N):
        system.addParticle(39.948)
    if system_box is not None:
        system.setDefaultPeriodicBoxVectors(*system_box)
    held = openmm.HarmonicBondForce()
    for k in range(bonds):
        held.addBond(k, k + 1, 0.4, 100.0)
    if bonds:
        system.addForce(held)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    if pdb is not None:
        top.setPeriodicBoxVectors(pdb * unit.nanometer)
    x = lattice(N, np.eye(3) * SIDE if pdb is None else pdb)
    with open(folder / "box.pdb", "w") as stream:
        app.PDBFile.writeFile(top, x * unit.nanometer, stream)
    own = {"topology": "box.pdb", "system": "system.xml"}
    if state_box is not None:
        context = context_of(empty_system(N, state_box), x, "Reference")
        state = context.getState(positions=True, velocities=True)
        (folder / "state.xml").write_text(openmm.XmlSerializer.serialize(state))
        own["state"] = "state.xml"
    g = 1 / (1 + np.exp(-(R - 0.34) / 0.01))
    np.savetxt(folder / "g.csv", np.stack([R, g], axis=1))
    target = {"observable": "rdf", "file": "g.csv", "uncertainty": 0.05}
    return {
        "system": own,
        "dynamics": {"temperature": 120.0, "timestep": 0.004, "platform": "Reference"},
        "potential": {"kind": "lennard-jones", "cutoff": 0.8},
        "target": [target],
        "refine": {"steps": 1000, "every": 25},
    }


def build(folder: Path, raw: dict[str, Any]) -> tuple[Refinement, list[str]]:
    said: list[str] = []
    return build_refinement(parse_configuration(raw, folder), warn=said.append), said


CUBE, LARGE, DEFAULT = np.eye(3) * SIDE, np.eye(3) * 2.4, np.eye(3) * 2.0


@pytest.mark.parametrize(
    ("boxes", "counts", "words"),
    [
        ((LARGE, None, None), LARGE, ("2.4 x 2.4", "2 x 2 x 2 nm, OpenMM's", "topology counts")),
        ((TRICLINIC, None, None), TRICLINIC, ("triclinic", "OpenMM's", "topology counts")),
        ((CUBE, LARGE, None), CUBE, ("1.9 x 1.9", "2.4 x 2.4", "topology counts")),
        ((LARGE, CUBE, TRICLINIC), TRICLINIC, ("2.4 x 2.4", "triclinic", "state counts")),
        ((LARGE, None, DEFAULT), DEFAULT, ("2.4 x 2.4", "2 x 2 x 2", "state counts")),
        ((None, None, None), DEFAULT, ("no file says", "2 nm")),
        ((np.eye(3) * 0.1, LARGE, None), LARGE, ()),  # what stands for no box in a PDB file
        ((None, LARGE, None), LARGE, ()),
        ((CUBE * 1.00001, CUBE, None), CUBE, ()),  # a PDB file's rounding: the System is exact
        ((DEFAULT, None, None), DEFAULT, ()),
    ],
)
def test_the_box_that_the_positions_are_in_counts_and_others_are_told(
    tmp_path: Path, boxes: tuple[Any, Any, Any], counts: Array, words: tuple[str, ...]
) -> None:
    fit, said = build(tmp_path, written(tmp_path, *boxes))
    point = fit.targets[0].state_points[0]
    np.testing.assert_allclose(point.box(), counts, atol=1e-3)
    said = [line for line in said if "box of" in line or "box is" in line or "no file says" in line]
    assert len(said) == bool(words)
    for word in words:
        assert word in said[0]


def test_a_simulation_in_openmms_default_box_is_told() -> None:
    potential = argon()
    system = openmm.System()
    for _ in range(27):
        system.addParticle(39.948)
    potential.attach(system)
    top = topology(27)
    top.setPeriodicBoxVectors(LARGE * unit.nanometer)
    simulation = simulate(system, lattice(27, LARGE), langevin(), top=top)
    with pytest.warns(RuntimeWarning, match=r"2 x 2 x 2 nm, OpenMM's default.*2\.4 x 2\.4"):
        StatePoint(simulation, potential)
    simulation.context.setPeriodicBoxVectors(*top.getPeriodicBoxVectors())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StatePoint(simulation, potential)


def test_a_topology_of_another_kind_is_named(tmp_path: Path) -> None:
    raw = written(tmp_path, CUBE, CUBE)
    (tmp_path / "box.pdb").rename(tmp_path / "box.gro")
    raw["system"]["topology"] = "box.gro"
    with pytest.raises(ConfigurationError, match=r"system\.topology.*expected a PDB or mmCIF"):
        build(tmp_path, raw)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no"),
        ("REMARK\nEND\n", "expected atoms"),
        ("\0\1\2", "expected atoms"),
        ("CRYST1 abc\n", "abc"),
        (None, "atom 0 (the first is 0) is not finite"),
    ],
)
def test_a_topology_without_sound_atoms_is_refused(
    tmp_path: Path, text: str | None, words: str
) -> None:
    raw = written(tmp_path, CUBE, CUBE)
    if text is None:
        lines = (tmp_path / "box.pdb").read_text().splitlines()
        text = "\n".join(s[:30] + "     nan" + s[38:] if "Ar" in s else s for s in lines)
    (tmp_path / "box.pdb").write_text(text)
    with pytest.raises(ConfigurationError, match=r"system\.topology.*box\.pdb") as error:
        build(tmp_path, raw)
    assert words in str(error.value)


# What else of a System a configuration says -------------------------------------------------------


def test_bonded_pairs_are_left_out_as_the_configuration_says(tmp_path: Path) -> None:
    for most, expected in ((1, 9), (2, 17), (0, 0)):
        raw = written(tmp_path, CUBE, CUBE, bonds=9)
        raw["system"]["exclude_bonds"] = most
        fit, said = build(tmp_path, raw)
        assert len(fit.targets[0].state_points[0].attached.exclusions()[0]) == expected
        assert not said
    _, said = build(tmp_path, written(tmp_path, CUBE, CUBE, bonds=9))
    assert len(said) == 1
    assert "9 in all" in said[0] and "exclude_bonds" in said[0]


def test_a_target_may_leave_out_near_pairs_of_a_molecule_only(tmp_path: Path) -> None:
    raw = written(tmp_path, CUBE, CUBE, bonds=9)
    raw["system"]["exclude_bonds"] = 2
    raw["target"][0]["exclude_bonds"] = 2
    fit, _ = build(tmp_path, raw)
    rdf: Any = fit.targets[0].observable
    assert (rdf.intramolecular, rdf.exclude_bonds) == (True, 2)


def mixture(folder: Path, kind: str) -> dict[str, Any]:
    """A configuration of two types, and a g(r) of each pair of them."""
    raw = written(folder, CUBE, CUBE)
    raw["system"]["types"] = ["index 0 to 19", "index 30 to 63"]
    raw["potential"] = {"kind": kind, "cutoff": 0.8, "knots": 30}
    raw["target"] = []
    for name, rise, first, second in (
        ("aa.csv", 0.30, "index 0 to 19", None),
        ("bb.csv", 0.42, "index 30 to 63", None),
        ("ab.csv", 0.36, "index 0 to 19", "index 30 to 63"),
    ):
        g = 1 / (1 + np.exp(-(R - rise) / 0.01)) + 0.8 * np.exp(-(((R - rise - 0.04) / 0.03) ** 2))
        np.savetxt(folder / name, np.stack([R, g], axis=1))
        target = {"observable": "rdf", "file": name, "uncertainty": 0.05, "atoms": first}
        raw["target"].append(target | ({} if second is None else {"atoms2": second}))
    return raw


@pytest.mark.parametrize("kind", ["spline", "lennard-jones"])
def test_types_are_selections_and_each_pair_starts_from_its_own_g(
    tmp_path: Path, kind: str
) -> None:
    fit, _ = build(tmp_path, mixture(tmp_path, kind))
    types = fit.targets[0].state_points[0].pair_types()[0]
    np.testing.assert_array_equal(types, np.repeat([0, -1, 1], [20, 10, 34]))
    r = np.linspace(0.26, 0.6, 200)
    u = fit.potential.energy(r, 120.0).detach().numpy()  # of the pairs 00, 01, 11
    walls = [r[np.argmax(row < 2.0)] for row in u]
    np.testing.assert_allclose(np.diff(walls), 0.06, atol=0.015)  # one after the other
    np.testing.assert_allclose(walls, [0.30, 0.36, 0.42], atol=0.04)


@pytest.mark.parametrize("kind", ["spline", "lennard-jones"])
def test_pairs_of_types_that_start_from_the_g_of_another_are_told(
    tmp_path: Path, kind: str
) -> None:
    raw = mixture(tmp_path, kind)
    raw["potential"]["initial"] = "boltzmann-inversion"
    assert not build(tmp_path, raw)[1]
    del raw["target"][1:]
    _, said = build(tmp_path, raw)
    assert len(said) == 1
    assert "pairs of types 0-1, 1-1 have no g(r) of their own" in said[0] and "aa.csv" in said[0]


def test_all_pairs_of_types_are_written(tmp_path: Path) -> None:
    fit, _ = build(tmp_path, mixture(tmp_path, "spline"))
    fit.run(rounds=1, steps=500, every=25, progress=False)
    (folder := tmp_path / "refined").mkdir()
    summary = write_results(fit, folder, {})
    lines = (folder / "potential.csv").read_text().splitlines()
    assert lines[0].split(",")[1::2] == ["u_kJ_mol_0_0", "u_kJ_mol_0_1", "u_kJ_mol_1_1"]
    r, *columns = np.loadtxt(lines[1:], delimiter=",", unpack=True)
    u, error = fit.potential_table(r)
    np.testing.assert_allclose(columns[::2], u)
    np.testing.assert_allclose(columns[1::2], error)
    assert {well["types"] for well in summary["final"]["wells"]} <= {"0 0", "0 1", "1 1"}


@pytest.mark.parametrize("learn", [[[0, 1], [1, 1]], [["index 30 to 63", "index 0 to 19"], [1, 1]]])
def test_pairs_of_types_that_are_not_learned_keep_the_table_of_a_fit(
    tmp_path: Path, learn: Any
) -> None:
    raw = mixture(tmp_path, "spline")
    r = np.linspace(0.25, 0.8, 100)
    start = argon(0.8, 40).energy(r)[0].detach().numpy()
    columns = [r, *(c for scale in (1.0, 0.8, 0.6) for c in (scale * start, 0.1 + 0 * r))]
    np.savetxt(tmp_path / "potential.csv", np.stack(columns, axis=1), delimiter=",")
    raw["potential"] |= {"file": "potential.csv", "r_min": 0.26, "learn": learn}
    fit, _ = build(tmp_path, raw)
    before = fit.potential.spline_coefficients().detach().numpy()
    u = fit.potential.energy([0.4]).detach().numpy()[:, 0]
    np.testing.assert_allclose(u / u[0], [1.0, 0.8, 0.6], rtol=1e-3)
    np.testing.assert_array_equal(fit.potential.learned_rows(), [False, True, True])
    fit.run(rounds=1, steps=500, every=25, progress=False)
    now = fit.potential.spline_coefficients().detach().numpy()
    np.testing.assert_array_equal(now[0], before[0])
    assert all((now[k] != before[k]).any() for k in (1, 2))


@pytest.mark.parametrize(
    "learn", [[], [0, 1], [[0]], [[0, 2]], [[0, True]], [["name Xx", 0]], "all", [[0, 0.0]]]
)
def test_pairs_of_types_that_a_configuration_lacks_are_refused(tmp_path: Path, learn: Any) -> None:
    raw = mixture(tmp_path, "spline")
    raw["potential"]["learn"] = learn
    with pytest.raises(ConfigurationError, match=r"potential\.learn: got .* pairs of system.types"):
        build(tmp_path, raw)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"types": ["index 0 to 19", "index 10 to 63"]}, ("system.types", "index 10 to 63")),
        ({"types": ["name Xx"]}, ("system.types", "selects no atom")),
        ({"types": "name Ar"}, ("system.types", "list")),
        ({"types": ["name Ar"], "atoms": "name Ar"}, ("system.types", "atoms")),
        ({"exclude_bonds": -1}, ("system.exclude_bonds", "-1")),
        ({"exclude_bonds": True}, ("system.exclude_bonds", "True")),
    ],
)
def test_what_a_system_cannot_have_is_refused(
    tmp_path: Path, entries: dict[str, Any], words: tuple[str, ...]
) -> None:
    raw = written(tmp_path, CUBE, CUBE)
    raw["system"] |= entries
    with pytest.raises(ConfigurationError) as error:
        build(tmp_path, raw)
    for word in words:
        assert word in str(error.value)


def test_options_of_gauss_newton_reach_the_fit_and_are_part_of_it(tmp_path: Path) -> None:
    raw = mixture(tmp_path, "spline")
    plain, _ = build(tmp_path, raw)
    raw["refine"]["gauss_newton"] = {"roughness": 2e4, "theory": False}
    fit, _ = build(tmp_path, raw)
    assert fit.method.options.roughness == 2e4 and not fit.method.options.theory
    assert plain.states[0].theory is not None and fit.states[0].theory is None
    assert plain.identity["method"] != fit.identity["method"]


def test_a_barostat_of_another_temperature_is_refused_by_key(tmp_path: Path) -> None:
    raw = written(tmp_path, CUBE, CUBE)
    raw["potential"]["cutoff"] = 0.6
    path = tmp_path / "system.xml"
    system = openmm.XmlSerializer.deserialize(path.read_text())
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    path.write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(
        ConfigurationError, match=r"120 K, but MonteCarloBarostat at 300 K"
    ) as error:
        build(tmp_path, raw)
    assert error.value.key == "dynamics.temperature"
    raw["dynamics"]["temperature"] = 300.0
    fit, _ = build(tmp_path, raw)
    assert fit.states[0].pressure == 1.0


def test_molecules_that_the_file_has_cut_start_whole(tmp_path: Path) -> None:
    """Bonds of OpenMM's own do not reach across the faces of the box."""
    raw = written(tmp_path, CUBE, CUBE, bonds=9)
    raw["system"]["exclude_bonds"] = 1
    fit, _ = build(tmp_path, raw)
    state = fit.targets[0].state_points[0].simulation.context.getState(positions=True)
    x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert np.linalg.norm(np.diff(x[:10], axis=0), axis=1).max() < 0.4 * SIDE


# A trajectory to begin with -----------------------------------------------------------------------


def test_a_stored_trajectory_is_fitted_without_md(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, CUBE, CUBE)
    pair = LennardJones(0.34, 1.0, 0.8)
    system = empty_system(N, CUBE)
    pair.attach(system)
    simulation = simulate(system, lattice(N, CUBE, 0.02), langevin(120.0))
    simulation.step(500)
    frames = []
    for _ in range(150):
        simulation.step(10)
        state = simulation.context.getState(positions=True)
        frames.append(state.getPositions(asNumpy=True)._value)
    trajectory = mdtraj.Trajectory(np.array(frames), topology_of(N))
    trajectory.unitcell_vectors = np.repeat(CUBE[None], len(frames), axis=0)
    trajectory.save_dcd("run.dcd")
    text = """
        [system]
        topology = "box.pdb"
        system = "system.xml"
        trajectory = "run.dcd"
        [dynamics]
        temperature = 120.0
        timestep = 0.004
        platform = "Reference"
        [potential]
        kind = "lennard-jones"
        cutoff = 0.8
        sigma = 0.34
        epsilon = 1.0
        [[target]]
        observable = "rdf"
        file = "g.csv"
        uncertainty = 0.3
        [refine]
        rounds = 2
        steps = 200
        every = 10
        output = "out"
    """
    Path("fit.toml").write_text(text)
    code = cli.main(["refine", "fit.toml"])
    said = capsys.readouterr().err
    assert code in (cli.FINISHED, cli.NOT_CONVERGED)
    assert "the frames reach" in said or "lies beyond" in said
    summary = json.loads(Path("out/summary.json").read_text())
    assert len(summary["rounds"]) == 1 and summary["final"]["md_steps"] == 0
    assert "posterior_over_prior" in Path("out/parameters.csv").read_text()
    Path("bad.toml").write_text(text.replace("sigma = 0.34", "").replace("epsilon = 1.0", ""))
    assert cli.main(["refine", "bad.toml"]) == cli.BAD_INPUT
    assert "what system.trajectory was sampled with" in capsys.readouterr().err
