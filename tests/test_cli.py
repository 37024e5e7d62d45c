"""The command line, as a user meets it: outputs, exit codes, one line per refusal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffsim import cli
from openmm_diffsim.engine import native
from openmm_diffsim.engine.adapters import has_native_force
from openmm_diffsim.fluid import fluid
from openmm_diffsim.report import figures

ENDED = (cli.FINISHED, cli.NOT_CONVERGED)  # of a fit that was left to end

CONFIG = """
[system]
particles = 120
number_density = 15.0
mass = 39.948
[dynamics]
temperature = 150.0
timestep = 0.01
platform = "{platform}"
threads = 1
[potential]
kind = "{kind}"
cutoff = {cutoff}
knots = 30
[[target]]
observable = "rdf"
file = "g.csv"
{target}
[refine]
method = "{method}"
rounds = {rounds}
equilibration = 200
steps = 1000
every = 25
output = "out"
"""


def hnc_like_g(r: np.ndarray) -> np.ndarray:
    """A plausible g(r) of a gas: exp(-u/kT) of a Lennard-Jones potential."""
    x6 = (0.34 / np.maximum(r, 0.1)) ** 6
    return np.exp(-4 * 0.8 * (x6**2 - x6))


def configure(folder: Path, rows: str | None = None, **options: object) -> Path:
    r = np.arange(0.005, 0.95, 0.01)
    text = "\n".join(f"{a:.4f},{b:.6f}" for a, b in zip(r, hnc_like_g(r), strict=True))
    (folder / "g.csv").write_text(text if rows is None else rows)
    defaults = {
        "platform": "CPU",
        "kind": "spline",
        "cutoff": 0.85,
        "target": "uncertainty = 0.02",
        "method": "gauss-newton",
        "rounds": 2,
    }
    path = folder / "fit.toml"
    path.write_text(CONFIG.format(**(defaults | options)))
    return path


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_refine_writes_everything_it_promises(here: Path) -> None:
    assert run("refine", configure(here)) in ENDED
    out = here / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["rounds"]) == 2 or summary["converged"]
    assert summary["theory"] == ["used"]
    for entry in summary["rounds"]:
        assert {"misfit", "rdf_rms", "n_effective", "md_steps", "seconds"} <= entry.keys()
    steps = [entry["md_steps"] for entry in summary["rounds"]]
    assert steps[0] >= 1200 and steps == sorted(steps)
    assert summary["configuration"]["system"]["particles"] == 120
    assert summary["versions"]["openmm"] == openmm.__version__
    (agreed,) = summary["final"]["agreement"]
    assert agreed["observable"] == "g(r)" and agreed["expected"] > 40
    assert [(u["name"], u["prior"]) for u in agreed["nuisances"]] == [("scale", 0.01)]
    assert agreed["reached"] is (agreed["p_value"] > 0.0027)

    header = (out / "potential.csv").read_text().splitlines()[0]
    assert header == "r_nm,u_kJ_mol,standard_error"
    r, u, error = np.loadtxt(out / "potential.csv", delimiter=",", skiprows=1).T
    assert (out / "rdf_0.csv").read_text().startswith("r_nm,g_target,g_model,standard_error\n")
    r_g, target, model, _ = np.loadtxt(out / "rdf_0.csv", delimiter=",", skiprows=1).T
    rms = np.sqrt(np.mean((target - model) ** 2))
    assert summary["final"]["rdf_rms"] == pytest.approx(rms, rel=1e-6)
    assert (out / "figure.png").stat().st_size > 20_000
    assert (out / "checkpoint.npz").exists()
    assert np.all(error[:-1] > 0) and np.all(np.diff(r) > 0) and r_g[-1] > 0.85

    # Plain OpenMM loads the System and State, and the force in it is the table's.
    system = openmm.XmlSerializer.deserialize((out / "system.xml").read_text())
    state = openmm.XmlSerializer.deserialize((out / "state.xml").read_text())
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setState(state)
    energy = context.getState(getEnergy=True).getPotentialEnergy()
    x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    side = system.getDefaultPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    i, j = np.triu_indices(len(x), 1)
    d = x[i] - x[j]
    distance = np.linalg.norm(d - side * np.round(d / side), axis=1)
    distance = distance[(distance < r[-1]) & (distance > r[0])]
    expected = np.interp(distance, r, u).sum()
    assert energy.value_in_unit(unit.kilojoule_per_mole) == pytest.approx(expected, abs=1.0)


@pytest.mark.usefixtures("plugin")
def test_dynamic_targets_are_refined_and_written(here: Path) -> None:
    t = np.arange(0, 0.31, 0.03)
    c = 0.0937 * np.exp(-t / 0.3)  # nm^2/ps^2; 3RT/m at 0
    np.savetxt(here / "c.csv", np.stack([t, c, np.full(len(t), 2e-3)], axis=1))
    more = """uncertainty = 0.02
[[target]]
observable = "vacf"
file = "c.csv"
[[target]]
observable = "diffusion"
value = 0.02
uncertainty = 0.005
length = 0.3
integrator = "nve"
"""
    config = configure(here, target=more, rounds=1, platform="Reference")
    assert run("refine", config) in ENDED
    out = here / "out"
    summary = json.loads((out / "summary.json").read_text())
    (scalar,) = summary["final"]["scalars"]
    assert (scalar["observable"], scalar["unit"]) == ("diffusion", "nm^2/ps")
    assert scalar["target"] == 0.02 and 0 < scalar["standard_error"] < scalar["model"]
    assert (out / "vacf_0.csv").read_text().startswith("t_ps,target,model,standard_error\n")
    times, target, model, error = np.loadtxt(out / "vacf_0.csv", delimiter=",", skiprows=1).T
    np.testing.assert_allclose(times, t)
    np.testing.assert_allclose(target, c)
    # C(0) is 3RT/m, whatever the potential; and what follows is smaller
    assert abs(model[0] - 0.0937) < 5 * error[0]
    assert (np.abs(model[5:]) < model[0]).all() and (out / "rdf_0.csv").exists()
    config.write_text(config.read_text().replace("length = 0.3", "length = 0.2"))
    assert run("refine", config, "--resume") == cli.BAD_INPUT  # its records are of other segments


def test_angles_are_refined_and_written(here: Path) -> None:
    theta = np.linspace(0, np.pi, 37)
    np.savetxt(here / "p.csv", np.stack([np.degrees(theta), np.radians(np.sin(theta) / 2)], axis=1))
    more = """uncertainty = 0.02
[[target]]
observable = "angles"
file = "p.csv"
angle_unit = "degree"
r_max = 0.55
bins = 30
uncertainty = 0.02
"""
    config = configure(here, target=more, rounds=1)
    assert run("refine", config) in ENDED
    header, *rows = (here / "out/angles_0.csv").read_text().splitlines()
    assert header == "theta_rad,p_target,p_model,standard_error"
    x, target, model, error = np.loadtxt(rows, delimiter=",").T
    np.testing.assert_allclose(x, theta[1:-1], rtol=1e-9)
    np.testing.assert_allclose(target, np.sin(x) / 2, atol=1e-9)
    assert model[np.degrees(x) < 20].max() < 0.02  # neighbours keep apart
    assert np.sum(model) * np.pi / 36 == pytest.approx(1, abs=0.02)
    assert (error > 0).all() and error.max() < 0.1
    summary = json.loads((here / "out/summary.json").read_text())
    g_target, g_model = np.loadtxt(here / "out/rdf_0.csv", delimiter=",", skiprows=1).T[1:3]
    rms = np.sqrt(np.mean((g_target - g_model) ** 2))  # that of g(r) alone
    assert summary["final"]["rdf_rms"] == pytest.approx(rms, rel=1e-6)
    config.write_text(config.read_text().replace("r_max = 0.55", "r_max = 0.50"))
    assert run("refine", config, "--resume") == cli.BAD_INPUT  # its records are of other angles


@pytest.mark.usefixtures("plugin")
def test_native_system_lies_beside_the_portable_one(here: Path) -> None:
    assert run("refine", configure(here, rounds=1, platform="Reference")) in ENDED
    state = openmm.XmlSerializer.deserialize((here / "out/state.xml").read_text())
    energies = []
    for name in ("system", "system_native"):
        system = openmm.XmlSerializer.deserialize((here / f"out/{name}.xml").read_text())
        assert has_native_force(system) == (name == "system_native")
        platform = openmm.Platform.getPlatform("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setState(state)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert energies[0] == pytest.approx(energies[1], rel=1e-9)


def test_platform_that_the_plugin_does_not_know_runs_the_table(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "supports", lambda platform: False)
    assert run("refine", configure(here, rounds=1)) in ENDED
    assert (here / "out/system.xml").exists()
    assert not (here / "out/system_native.xml").exists()


@pytest.mark.parametrize(
    "kind", ["lennard-jones", "mie", "morse", "soft-sphere", "yukawa", "neural"]
)
def test_every_kind_starts_from_the_measured_structure(here: Path, kind: str) -> None:
    assert run("refine", configure(here, kind=kind, rounds=1)) in ENDED
    summary = json.loads((here / "out/summary.json").read_text())
    assert summary["rounds"][0]["rdf_rms"] < 0.5
    if kind == "lennard-jones":
        assert summary["final"]["parameters"]["sigma"][0] == pytest.approx(0.34, abs=0.02)


def test_second_run_needs_resume_and_continues(here: Path, capsys: pytest.CaptureFixture) -> None:
    config = configure(here, target="uncertainty = 0.0002", rounds=1)
    assert run("refine", config) in ENDED
    first = json.loads((here / "out/summary.json").read_text())["rounds"]
    assert run("refine", config) == cli.BAD_INPUT
    assert "--resume" in capsys.readouterr().err
    config = configure(here, target="uncertainty = 0.0002", rounds=3)
    assert run("refine", config, "--resume") in ENDED
    rounds = json.loads((here / "out/summary.json").read_text())["rounds"]
    assert len(rounds) == 3 and rounds[0] == first[0]


def test_foreign_checkpoint_is_refused_and_kept(here: Path, capsys: pytest.CaptureFixture) -> None:
    config = configure(here, rounds=1)
    assert run("refine", config) in ENDED
    before = (here / "out/checkpoint.npz").read_bytes()
    assert run("refine", configure(here, cutoff=0.8), "--resume") == cli.BAD_INPUT
    assert "another fit" in capsys.readouterr().err
    assert (here / "out/checkpoint.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("number_density = 15.0", "number_density = 14.0", "the density in 1/nm^3 was 15, is 14"),
        ("number_density = 15.0", "number_density = 14.9", "the density in 1/nm^3 was 15, is 14.9"),
        ("mass = 39.948", "mass = 20.0", "the masses in amu were 120 x 39.948, are 120 x 20.0"),
        ("particles = 120", "particles = 125", "the number of particles was 120, is 125"),
        ("temperature = 150.0", "temperature = 151.0", "the temperature in K was 150, is 151"),
    ],
)
def test_a_fit_of_another_liquid_does_not_go_on(
    here: Path, old: str, new: str, words: str, capsys: pytest.CaptureFixture
) -> None:
    config = configure(here, rounds=1, platform="Reference", cutoff=0.8)
    rows = (here / "g.csv").read_text().splitlines()[:80]  # end inside all of these boxes
    (here / "g.csv").write_text("\n".join(rows))
    assert run("refine", config) in ENDED
    before = {path: path.read_bytes() for path in (here / "out").iterdir()}
    capsys.readouterr()
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new).replace("rounds = 1", "rounds = 2"))
    assert run("refine", config, "--resume") == cli.BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert words in said and "another fit" in said and "\n" not in said
    assert {path: path.read_bytes() for path in (here / "out").iterdir()} == before


def test_a_fit_beside_other_forces_does_not_go_on(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    config = own_system(here, 0.0)
    assert run("refine", config) in ENDED
    own_system(here, 1.5)
    config.write_text(config.read_text().replace("rounds = 1", "rounds = 2"))
    assert run("refine", config, "--resume") == cli.BAD_INPUT
    assert "forces, CustomExternalForce" in capsys.readouterr().err


BAD_FILES = {
    "empty": ("", "is empty"),
    "no numbers": ("hello\nworld\n", "number"),
    "truncated": ("0.30,0.1\n0.31,0.9\n0.32,1.2\n", "truncated"),
    "not a number": ("0.30,0.1\n0.31,abc\n0.32,1.2\n0.33,1\n0.34,1\n", "line 2"),
    "all NaN": ("0.3,nan\n0.4,nan\n0.5,nan\n0.6,nan\n0.7,nan\n", "NaN"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_refused_in_one_line(
    here: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    rows, words = BAD_FILES[name]
    assert run("refine", configure(here, rows)) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert "g.csv" in said and words in said and "\n" not in said
    assert not (here / "out").exists()


def test_unit_confusion_is_refused(here: Path, capsys: pytest.CaptureFixture) -> None:
    r = np.arange(0.05, 9.5, 0.1)  # angstrom, but not said to be
    rows = "\n".join(f"{a:.4f},{b:.6f}" for a, b in zip(r, hnc_like_g(0.1 * r), strict=True))
    assert run("refine", configure(here, rows)) == cli.BAD_INPUT
    assert "angstrom" in capsys.readouterr().err
    right = 'uncertainty = 0.02\nlength_unit = "angstrom"'
    assert run("refine", configure(here, rows, target=right, rounds=1)) in ENDED


def test_reversed_rows_give_the_same_fit(here: Path) -> None:
    config = configure(here, rounds=1, platform="Reference")
    rows = (here / "g.csv").read_text().splitlines()
    assert run("refine", config, "--output", here / "a") in ENDED
    (here / "g.csv").write_text("\n".join(reversed(rows)))
    assert run("refine", config, "--output", here / "b") in ENDED
    assert (here / "a/potential.csv").read_text() == (here / "b/potential.csv").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cutoff": 1.5}, "potential.cutoff"),
        ({"platform": "Abacus"}, "dynamics.platform"),
        ({"target": ""}, "uncertainty"),
        ({"target": "uncertainty = 0.02\nwindow = [0.3, 1.4]"}, "target.window"),
        ({"cutoff": 0.2}, "potential.cutoff"),
        ({"target": "uncertainty = 0.02\natoms = 'name Q'"}, "selects no atom"),
    ],
)
def test_bad_combination_is_refused(
    here: Path, options: dict[str, object], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert run("refine", configure(here, **options)) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said


def test_wrong_density_is_refused(here: Path, capsys: pytest.CaptureFixture) -> None:
    config = configure(here)
    config.write_text(config.read_text().replace("15.0", "150.0"))
    assert run("refine", config) == cli.BAD_INPUT
    assert "density" in capsys.readouterr().err


def test_target_beyond_the_box_is_cut_and_said(here: Path, capsys: pytest.CaptureFixture) -> None:
    r = np.arange(0.005, 2.5, 0.01)
    rows = "\n".join(f"{a:.4f},{b:.6f}" for a, b in zip(r, hnc_like_g(r), strict=True))
    assert run("refine", configure(here, rows, rounds=1)) in ENDED
    assert "half the box" in capsys.readouterr().err
    compared = np.loadtxt(here / "out/rdf_0.csv", delimiter=",", skiprows=1)[:, 0]
    assert compared[-1] < 1.0


def test_exploding_potential_is_not_trusted(here: Path, capsys: pytest.CaptureFixture) -> None:
    config = configure(here)
    table = "\n".join(
        f"{r:.3f} {1e6 * (r - 0.85) ** 2 * r:.1f}" for r in np.arange(0.3, 0.86, 0.01)
    )
    (here / "u.csv").write_text(table)
    config.write_text(
        config.read_text().replace("knots = 30", 'knots = 30\nr_min = 0.3\nfile = "u.csv"')
    )
    assert run("refine", config) == cli.NOT_TRUSTED
    assert "exploded" in capsys.readouterr().err


def own_system(here: Path, strength: float) -> Path:
    """Beside a force of its own, which pulls all particles to the middle."""
    topology, system = fluid(120, 15.0, 39.948)
    bystander = openmm.CustomExternalForce("k*periodicdistance(x,y,z,0,0,0)^2")
    bystander.addPerParticleParameter("k")
    for index in range(120):
        bystander.addParticle(index, [strength])
    system.addForce(bystander)
    (here / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    side = system.getDefaultPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    grid = np.stack(np.meshgrid(*3 * [np.arange(5)]), axis=-1).reshape(-1, 3)[:120] * side / 5
    with open(here / "box.pdb", "w") as stream:
        app.PDBFile.writeFile(topology, grid * unit.nanometer, stream)
    config = configure(here, rounds=1)
    start = config.read_text().index("[dynamics]")
    own = '[system]\ntopology = "box.pdb"\nsystem = "system.xml"\natoms = "name X"\n'
    config.write_text(own + config.read_text()[start:])
    return config


def test_own_system_is_refined(here: Path) -> None:
    config = own_system(here, 0.0)
    assert run("refine", config) in ENDED
    refined = openmm.XmlSerializer.deserialize((here / "out/system.xml").read_text())
    assert refined.getNumForces() == 2


def test_code_in_a_system_of_others_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topology, system = fluid(120, 15.0, 39.948)
    system.addForce(openmm.PythonForce(len))
    (here / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with open(here / "box.pdb", "w") as stream:
        app.PDBFile.writeFile(topology, np.zeros((120, 3)), stream)
    config = configure(here, rounds=1)
    start = config.read_text().index("[dynamics]")
    own = '[system]\ntopology = "box.pdb"\nsystem = "system.xml"\n'
    config.write_text(own + config.read_text()[start:])
    assert run("refine", config) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert re.match(r"openmm-diffsim: system\.system: .*system\.xml.*PythonForce.*--trust", said)
    assert said.count("\n") == 1


def test_killed_run_resumes(here: Path) -> None:
    config = configure(here, target="uncertainty = 0.0002", rounds=6)
    command = [sys.executable, "-m", "openmm_diffsim", "refine", str(config)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    checkpoint = here / "out/checkpoint.npz"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert run("refine", config, "--resume") in ENDED
    assert len(json.loads((here / "out/summary.json").read_text())["rounds"]) == 6


def test_a_fit_that_has_not_converged_says_so_everywhere(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an exit code of its own, in one sentence, in summary.json, and on the figure."""
    titles = []
    drawn = figures.fit_figure
    monkeypatch.setattr(
        figures, "fit_figure", lambda *a, title, **k: titles.append(title) or drawn(*a, title=title)
    )
    more = """uncertainty = 0.1
[[target]]
observable = "pressure"
value = 20000.0
uncertainty = 1.0
"""
    assert run("refine", configure(here, target=more, rounds=1)) == cli.NOT_CONVERGED == 4
    said = capsys.readouterr()
    (line,) = [text for text in said.err.splitlines() if "not converged: Pressure is off" in text]
    assert "combined errors" in line and "--resume, with more rounds" in line
    assert "not converged after 1 rounds" in said.out and "finished" not in said.out
    summary = json.loads((here / "out/summary.json").read_text())
    assert summary["converged"] is False
    assert {t["name"] for t in summary["verdict"]["targets"]} == {"g(r)", "Pressure"}
    assert summary["verdict"]["reasons"][0].startswith("Pressure is off by")
    assert summary["rounds"][0]["worst"] == "Pressure"
    assert "not converged: Pressure is off by" in titles[0]
    assert all(text in titles[0] for text in summary["warnings"])


def test_a_fit_that_has_converged_ends_with_zero(here: Path, capsys: pytest.CaptureFixture) -> None:
    """The g(r) of a gas, to a tenth."""
    config = configure(here, target="uncertainty = 0.3", rounds=9)
    assert run("refine", config) == cli.FINISHED == 0
    said = capsys.readouterr()
    assert said.out.startswith("converged after") and "not converged" not in said.err
    assert json.loads((here / "out/summary.json").read_text())["verdict"]["reasons"] == []


def test_interrupt_leaves_results_behind(here: Path) -> None:
    config = configure(here, target="uncertainty = 0.0002", rounds=500)
    command = [sys.executable, "-m", "openmm_diffsim", "refine", str(config)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    deadline = time.monotonic() + 120
    while not (here / "out/checkpoint.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED
    assert "--resume" in said and "Traceback" not in said
    assert (here / "out/potential.csv").exists()


def test_rdf_of_a_trajectory_agrees_with_mdtraj(here: Path) -> None:
    topology, _ = fluid(100, 15.0, 39.948)
    random = np.random.default_rng(3)
    side = (100 / 15.0) ** (1 / 3)
    frames = mdtraj.Trajectory(
        random.random((200, 100, 3)) * side,
        mdtraj.Topology.from_openmm(topology),
        unitcell_lengths=np.full((200, 3), side),
        unitcell_angles=np.full((200, 3), 90.0),
    )
    frames.save_dcd(here / "run.dcd")
    frames[0].save_pdb(here / "top.pdb")
    code = run(
        "rdf", here / "top.pdb", here / "run.dcd", "--r-max", 0.9, "--bins", 30, "--output", "g.csv"
    )
    assert code == cli.FINISHED
    r, g, error = np.loadtxt(here / "g.csv", delimiter=",", skiprows=1).T
    stored = mdtraj.load(here / "run.dcd", top=here / "top.pdb")
    pairs = stored.topology.select_pairs("all", "all")
    r_ref, g_ref = mdtraj.compute_rdf(stored, pairs, r_range=(0, 0.9), n_bins=30)
    np.testing.assert_allclose(r, r_ref, rtol=1e-6)
    np.testing.assert_allclose(g, g_ref, atol=2e-3)  # mdtraj counts in single precision
    # An ideal gas: 1 within four of its standard errors.
    assert np.all(np.abs(g - 1)[5:] < 4 * error[5:])
    assert (here / "g.png").exists()


def test_rdf_refuses_what_it_cannot_read(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("rdf", "absent.pdb", "absent.dcd") == cli.BAD_INPUT
    assert "absent.pdb" in capsys.readouterr().err


def test_rdf_replaces_only_what_it_wrote(here: Path, capsys: pytest.CaptureFixture) -> None:
    topology, _ = fluid(20, 15.0, 39.948)
    side = (20 / 15.0) ** (1 / 3)
    frames = mdtraj.Trajectory(
        np.random.default_rng(1).random((30, 20, 3)) * side,
        mdtraj.Topology.from_openmm(topology),
        unitcell_lengths=np.full((30, 3), side),
        unitcell_angles=np.full((30, 3), 90.0),
    )
    frames.save_dcd(here / "run.dcd")
    frames[0].save_pdb(here / "top.pdb")
    (here / "notes.csv").write_text("mine")
    (here / "b.png").write_text("mine")
    before = {path: path.read_bytes() for path in here.iterdir()}
    for name in ("run.dcd", "top.pdb", "notes.csv", "b.csv", "c.png"):
        assert run("rdf", "top.pdb", "run.dcd", "--output", name) == cli.BAD_INPUT
        assert name[0] in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.iterdir()} == before
    for _ in range(2):
        assert run("rdf", "top.pdb", "run.dcd", "--output", "a.csv") == cli.FINISHED


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONWARNINGS": "error"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
    ],
    ids=["warnings are errors", "ascii output", "C locale"],
)
def test_a_fit_in_a_plain_environment(here: Path, environment: dict[str, str]) -> None:
    configure(here, rounds=2, platform="Reference", target="uncertainty = 0.0002")
    command = [sys.executable, "-m", "openmm_diffsim", "refine", "fit.toml", "--output", "möge"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True)
    assert done.returncode == cli.NOT_CONVERGED, done.stderr
    assert b"not converged after 2 rounds" in done.stdout and (here / "möge/summary.json").exists()


def test_info_names_versions_and_platforms(capsys: pytest.CaptureFixture) -> None:
    assert run("info") == cli.FINISHED
    said = capsys.readouterr().out
    assert openmm.__version__ in said and "Reference" in said and "CPU" in said
    assert "native" in said
    names = {
        openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())
    }
    assert ("missing: pip install" in said) == ("CUDA" not in names or "HIP" not in names)


@pytest.mark.parametrize(
    ("name", "data"), [("argon", "argon_gr.csv"), ("water", "water_oo_soper2008.csv")]
)
def test_measured_liquid_is_refined_by_one_command(
    here: Path, name: str, data: str, shared_data: Callable[[str], Path]
) -> None:
    """The shipped configuration, but for a smaller box and fewer rounds."""
    measured = shared_data(f"experiment/{data}")
    shipped = Path(__file__).resolve().parents[1] / "examples" / f"{name}.toml"
    text = shipped.read_text().replace(f"../../shared/data/experiment/{data}", str(measured))
    for long, short in (("particles = 500", "particles = 300"), ("rounds = 15", "rounds = 6")):
        assert long in text
        text = text.replace(long, short)
    (here / "fit.toml").write_text(text.replace("cutoff = 0.9", "cutoff = 0.85"))
    assert run("refine", "fit.toml") in ENDED
    summary = json.loads((here / name / "summary.json").read_text())
    assert summary["final"]["rdf_rms"] < 0.05
    assert summary["final"]["rdf_rms"] < 0.5 * summary["rounds"][0]["rdf_rms"]


def test_full_disk_during_a_fit_is_a_warning(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("openmm_diffsim.io.archive.atomic_write_bytes", full)
        assert run("refine", configure(here)) in ENDED
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 2 and "make room" in said
    assert not (here / "out/checkpoint.npz").exists()
    assert len(json.loads((here / "out/summary.json").read_text())["rounds"]) == 2


def test_full_disk_at_the_end_keeps_the_checkpoint(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    config = configure(here)
    with monkeypatch.context() as patch:
        patch.setattr("openmm_diffsim.io.manifest.atomic_write_bytes", full)
        assert run("refine", config) == cli.FAILED
    assert "No space left on device" in capsys.readouterr().err
    assert run("refine", config, "--resume") in ENDED
    assert (here / "out/summary.json").exists()
