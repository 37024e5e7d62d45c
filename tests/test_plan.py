"""``check`` and ``new``: what a configuration would do, and one to start from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app
from test_cli import configure, here, run  # noqa: F401  a fixture
from test_configured_states import water

from openmm_diffsim import cli
from openmm_diffsim.configuration.build import build_refinement
from openmm_diffsim.configuration.plan import Plan, plan
from openmm_diffsim.configuration.toml import parse_configuration, read_configuration


def planned(config: Path, **options: bool) -> tuple[Plan, object]:
    configuration, notes = read_configuration(config), list[str]()
    fit = build_refinement(configuration, warn=notes.append)
    return plan(configuration, fit, notes, **options), fit


def test_what_is_planned_is_what_is_run(here: Path) -> None:  # noqa: F811
    found, _ = planned(configure(here))
    fit = build_refinement(read_configuration(here / "fit.toml"), warn=print)
    fit.run(2, 1000, 25, 200, progress=False)
    assert len(fit.history) == 2 and fit.md_steps == found.md_steps == 2 * 1200
    assert found.frames == 80
    samples = fit.states[0].frames
    arrays = samples.arrays(fit.states[0].recorded(), Path())
    of_frames = [a for a in arrays.values() if a.ndim and len(a) == len(samples)]
    assert found.bytes == 80 * sum(a.nbytes for a in of_frames) / len(samples)
    assert found.seconds > 0 and found.parameters == 28
    assert not (here / "out").exists()


def test_check_says_so_and_writes_nothing(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {configure(here), here / "g.csv"}
    assert run("check", "fit.toml") == cli.FINISHED
    said = capsys.readouterr().out
    assert "state0: 120 particles, 150 K, constant volume, CPU" in said
    assert "SplinePair: 28 parameters" in said
    assert re.search(r"g\(r\) of state0: \d+ points from [0-9.]+ to 0.9", said)
    assert "at most 2 rounds of 1000 steps, a frame every 25: 2400 MD steps, 80 frames" in said
    assert "steps/s" in said and "Suspicious" not in said
    assert set(here.iterdir()) == before
    assert run("check", "fit.toml", "--no-trial") == cli.FINISHED
    assert "time and memory not tried" in capsys.readouterr().out


def test_each_term_is_called_by_its_name(tmp_path: Path) -> None:
    """Also a System's own parameters, which have terms that are none of a sum."""
    raw = water(tmp_path)
    configuration = parse_configuration(raw, tmp_path)
    fit = build_refinement(configuration, warn=lambda text: None)
    found = plan(configuration, fit, [], trial=False)
    assert found.potential == fit.potential.name == "parameters"


SUSPICIOUS = {
    "few frames": ({"rounds": "2\nequilibration = 0\nsteps = 500\nevery = 25\n#"}, "20 frames"),
    "Reference": ({"platform": "Reference"}, "Reference platform is slow"),
    "cutoff": ({"cutoff": 0.99}, "reaches to 0.99 nm, but g\\(r\\) is given to 0.9"),
}


@pytest.mark.parametrize("name", SUSPICIOUS)
def test_what_is_suspicious_is_said(here: Path, name: str) -> None:  # noqa: F811
    options, expected = SUSPICIOUS[name]
    config = configure(here, **options)
    if name == "few frames":
        text = config.read_text().replace("\nequilibration = 200\nsteps = 1000\nevery = 25\n", "\n")
        config.write_text(text)
    if name == "cutoff":
        rows = [line for line in (here / "g.csv").read_text().split() if float(line[:6]) < 0.91]
        (here / "g.csv").write_text("\n".join(rows))
    found, _ = planned(config, trial=False)
    assert any(re.search(expected, text) for text in found.remarks), found.remarks


def test_a_state_without_a_target_is_said(here: Path) -> None:  # noqa: F811
    config = configure(here, target='uncertainty = 0.02\nstate = "cold"')
    states = '[[state]]\nname = "cold"\n[[state]]\nname = "hot"\ntemperature = 180.0\n'
    config.write_text(config.read_text().replace("[potential]", states + "[potential]"))
    found, _ = planned(config, trial=False)
    assert [state.name for state in found.states] == ["cold"]
    assert "hot has no target: it will not be sampled" in found.remarks


def test_a_trial_that_explodes_is_said(here: Path) -> None:  # noqa: F811
    config = configure(here)
    config.write_text(config.read_text().replace("timestep = 0.01", "timestep = 0.4"))
    found, _ = planned(config)
    assert any(text.startswith("state0: a trial ended:") for text in found.remarks), found.remarks


# A configuration to start from -------------------------------------------------------------------


def test_new_writes_a_fit_that_check_takes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    configure(here)
    given = ["--rdf", "g.csv", "--temperature", "150", "--mass", "39.9", "--density", "1.0"]
    assert run("new", "mine.toml", *given, "--cutoff", "0.85", "--pressure", "40") == cli.FINISHED
    assert run("check", "mine.toml", "--no-trial") == cli.FINISHED
    said = capsys.readouterr().out
    assert "500 particles, 150 K" in said and "Pressure of state0: 40 +/- 50 bar" in said
    made = read_configuration(here / "mine.toml")
    assert made.refine.output == Path("refined_mine")
    assert run("new", "mine.toml", *given) == cli.BAD_INPUT  # nothing is replaced
    assert "there already" in capsys.readouterr().err


def test_new_begins_from_files_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    configure(here)
    system, topology, rng = openmm.System(), app.Topology(), np.random.default_rng(1)
    system.setDefaultPeriodicBoxVectors(*(2.0 * np.eye(3)))
    topology.setPeriodicBoxVectors(2.0 * np.eye(3))
    chain = topology.addChain()
    for _ in range(64):
        system.addParticle(39.9)
        topology.addAtom("AR", app.Element.getBySymbol("Ar"), topology.addResidue("LIQ", chain))
    (here / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3) * 0.5
    with open(here / "start.pdb", "w") as stream:
        app.PDBFile.writeFile(topology, (grid + rng.uniform(0, 0.05, grid.shape)) * 10, stream)
    given = ["--rdf", "g.csv", "--temperature", "150", "--topology", "start.pdb"]
    given += ["--system", "system.xml", "--atoms", "name AR"]
    assert run("new", "mine.toml", *given) == cli.FINISHED
    assert "64 x name AR of LIQ" in (here / "mine.toml").read_text()
    assert run("check", "mine.toml", "--no-trial") == cli.FINISHED
    assert "64 particles" in capsys.readouterr().out


def test_new_asks_for_what_is_not_given(
    here: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(here)
    answers: Iterator[str] = iter(["g.csv", "", "150", "", "39.9", "1.2"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    assert run("new", "mine.toml") == cli.FINISHED
    made = read_configuration(here / "mine.toml")
    assert made.dynamics.temperature == 150.0 and made.system.mass == 39.9
    assert next(answers, None) is None


def test_new_says_what_is_missing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert run("new", "mine.toml") == cli.BAD_INPUT
    assert "--rdf and --temperature: missing" in capsys.readouterr().err
    assert run("new", "mine.toml", "--rdf", "no.csv", "--temperature", "1") == cli.BAD_INPUT
    assert "there is no file no.csv" in capsys.readouterr().err
    assert list(here.iterdir()) == []
