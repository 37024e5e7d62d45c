"""Predictions at states that were not fitted, against exact values: springs in a trap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from systems import empty_system, simulate
from test_cli import ENDED, configure, here, run  # noqa: F401  a fixture
from test_offline import KELVIN, LENGTH, STIFFNESS, N, Spread, Spring, drawn, fit_of, trajectory_of

import openmm_diffsim as diffsim
from openmm_diffsim import Refinement, StatePoint, Target, cli, predict
from openmm_diffsim.errors import TargetError
from openmm_diffsim.potentials import set_flat_parameters
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

ERROR = 0.02  # of the target, relative


def point_at(
    spring: diffsim.Potential, kelvin: float, mass: float = 1.0, seed: int = 7
) -> StatePoint:
    """The same springs at another temperature, or of another mass."""
    system = empty_system(N, np.eye(3) * LENGTH)
    if mass != 1.0:
        system.setParticleMass(0, mass * system.getParticleMass(0))
    spring.attach(system)
    integrator = openmm.LangevinMiddleIntegrator(kelvin, 5.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    return StatePoint(simulate(system, np.full((N, 3), 0.01), integrator), spring)


def exact(k: float, kelvin: float) -> float:
    return 3 * MOLAR_GAS_CONSTANT * kelvin / k


def fitted(seed: int = 1, frames: int = 600) -> Refinement:
    """From frames of the right stiffness, and a target with noise of its own."""
    spring = Spring()
    fit, point = fit_of(spring, STIFFNESS, ERROR)
    noisy = exact(STIFFNESS, KELVIN) * (1 + ERROR * np.random.default_rng(seed).standard_normal())
    fit = Refinement(spring, [Target(point, Spread(), noisy, uncertainty=ERROR * noisy)])
    fit.read(point, trajectory_of(drawn(STIFFNESS, frames, seed)))
    fit.reweight()
    return fit


def asked(fit: Refinement, kelvin: float, **options: Any) -> diffsim.Prediction:
    """<|x|^2> at another temperature, where the truth has it exactly."""
    point = point_at(fit.potential, kelvin, options.pop("mass", 1.0), options.pop("seed", 7))
    target = Target(point, Spread(), exact(STIFFNESS, kelvin), uncertainty=1e-4)
    known: dict[str, Any] = {"covariance": fit.result.covariance, "states": fit.states}
    [found] = predict(
        fit.potential, [target], 12_000, 80, **(known | {"progress": False} | options)
    )
    assert found.target is target
    return found


def test_frames_of_the_fit_are_reweighted_as_far_as_they_reach() -> None:
    fit = fitted()
    k, sigma = fit.potential.stiffness, np.sqrt(fit.result.covariance[0, 0])
    near = asked(fit, 1.04 * KELVIN)
    assert near.is_reweighted and near.n_effective > 50
    assert abs(near.values[0] - exact(k, 1.04 * KELVIN)) < 4 * near.frames_error[0]
    # d<|x|^2>/dk = -3 RT/k^2; the frames know a fluctuation of 36 coordinates to a tenth.
    slope = exact(k, 1.04 * KELVIN) / k
    assert near.parameters_error[0] == pytest.approx(slope * sigma, rel=0.3)
    assert near.standard_error[0] == pytest.approx(
        np.hypot(near.frames_error[0], near.parameters_error[0])
    )


def test_the_error_by_parameters_follows_from_differences_on_the_same_frames() -> None:
    fit = fitted()
    found = asked(fit, 1.04 * KELVIN)
    theta, step = fit.view().parameters.detach(), 0.01
    averages = []
    for shift in (step, -step):
        set_flat_parameters(fit.potential, theta + shift)
        averages.append(asked(fit, 1.04 * KELVIN, covariance=None).values[0])
    set_flat_parameters(fit.potential, theta)
    slope = (averages[0] - averages[1]) / (2 * step)
    sigma = np.sqrt(fit.result.covariance[0, 0])
    assert found.parameters_error[0] == pytest.approx(abs(slope) * sigma, rel=1e-5)


def test_where_frames_do_not_reach_there_is_new_md() -> None:
    fit = fitted()
    far = asked(fit, 3 * KELVIN)
    assert not far.is_reweighted
    k = fit.potential.stiffness
    assert abs(far.values[0] - exact(k, 3 * KELVIN)) < 4 * far.frames_error[0]
    assert not asked(fit, KELVIN, mass=2.0).is_reweighted  # another System
    assert not asked(fit, KELVIN, states=()).is_reweighted


def test_what_is_not_known_of_the_parameters_is_said() -> None:
    found = asked(fitted(), KELVIN, covariance=None)
    assert np.isnan(found.parameters_error).all()
    assert found.standard_error[0] == found.frames_error[0] > 0


@pytest.mark.parametrize("anew", [True, False])
def test_errors_cover_the_truth(anew: bool) -> None:
    """Of 40 fits, 95 % are expected within two errors: 0.82 is 3.8 standard errors below.

    Of reweighted frames the fit has cancelled what both share, which counts twice:
    here errors are 1.7 times too large.
    """
    states: dict[str, Any] = {"states": ()} if anew else {}
    off = []
    for seed in range(40):
        found = asked(fitted(seed, 150), 1.04 * KELVIN, seed=seed + 1, **states)
        off.append((found.values[0] - exact(STIFFNESS, 1.04 * KELVIN)) / found.standard_error[0])
    assert np.mean(np.abs(off) < 2) > 0.82
    assert np.std(off) > (0.75 if anew else 0.4)  # nor are they much too large


def test_misfit_is_by_the_combined_error() -> None:
    found = asked(fitted(), 1.04 * KELVIN)
    difference = found.values - found.target.values
    assert found.rms == pytest.approx(abs(difference[0]))
    combined = np.hypot(found.standard_error, found.target.uncertainty)
    assert found.misfit == pytest.approx(abs(difference[0] / combined[0]))


def test_targets_of_another_potential_are_refused() -> None:
    fit, other = fitted(), fitted()
    with pytest.raises(TargetError, match="another potential"):
        predict(fit.potential, other.targets, 3000, 30, progress=False)


# From the command line ---------------------------------------------------------------------------

STATES = """
[[state]]
name = "cold"
[[state]]
name = "near"
temperature = 152.0
[[state]]
name = "hot"
temperature = 400.0
"""
HELD_OUT = """
[[target]]
observable = "rdf"
file = "g.csv"
uncertainty = 0.02
state = "{state}"
predict = true
"""


def several(folder: Path) -> Path:
    """The fit of one state point, and two more to be predicted."""
    more = "".join(HELD_OUT.format(state=name) for name in ("near", "hot"))
    config = configure(folder, target='uncertainty = 0.02\nstate = "cold"\n' + more, rounds=4)
    config.write_text(config.read_text().replace("[potential]", STATES + "[potential]"))
    return config


def test_states_are_predicted_by_one_command(here: Path) -> None:  # noqa: F811
    config = several(here)
    assert run("refine", config) in ENDED
    summary = json.loads((here / "out" / "summary.json").read_text())
    assert [state["name"] for state in summary["states"]] == ["cold"]
    assert run("predict", config, "--potential", "out", "--steps", 2000) == cli.FINISHED
    folder = here / "predicted_fit"
    near, hot = json.loads((folder / "predictions.json").read_text())["predictions"]
    assert (near["states"], near["frames"]) == ("near", "reweighted")
    assert (hot["states"], hot["frames"]) == ("hot", "sampled")
    r, g, model, error = np.loadtxt(folder / "rdf_hot_0.csv", delimiter=",", skiprows=1).T
    assert hot["rms"] == pytest.approx(np.sqrt(np.mean((model - g) ** 2)), rel=1e-5)
    assert (error[r > 0.35] > 0).all() and hot["n_effective"] > 20
    assert (folder / "predictions.png").read_bytes()[1:4] == b"PNG"
    # The same by parameters and their covariance alone, as from a fit that is gone but for these.
    (here / "out" / "checkpoint.npz").unlink()
    again = ("predict", config, "--potential", "out", "--steps", 2000, "--output", "again")
    assert run(*again) == cli.FINISHED
    entries = json.loads((here / "again" / "predictions.json").read_text())["predictions"]
    assert [entry["frames"] for entry in entries] == ["sampled"] * 2
    assert abs(entries[0]["rms"] - near["rms"]) < 0.05


def test_another_potential_is_refused_by_what_differs(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("refine", configure(here)) in ENDED
    assert run("predict", configure(here, cutoff=0.8), "--potential", "out") == cli.BAD_INPUT
    assert "another form" in capsys.readouterr().err
    assert run("predict", configure(here), "--potential", "nowhere") == cli.BAD_INPUT
    assert "output folder of a fit" in capsys.readouterr().err
