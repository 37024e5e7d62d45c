"""A checkpoint belongs to one fit: whatever else differs is refused, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from systems import TEMPERATURE, argon, empty_system, langevin, lattice, simulate

from openmm_diffsim import (
    MSD,
    RDF,
    FunctionOfAverages,
    GaussNewton,
    GaussNewtonOptions,
    Pressure,
    Refinement,
    SplinePair,
    StatePoint,
    Target,
    TorchOptimizer,
)
from openmm_diffsim.errors import CheckpointError, ObservableError
from openmm_diffsim.potentials import flat_parameters
from openmm_diffsim.refinement.identity import differences

N, LENGTH = 27, 1.3
STEPS, EVERY = 60, 10
R = np.linspace(0.3, 0.55, 10)


def spline(**options: Any) -> SplinePair:
    """Something like argon."""
    pair = SplinePair(0.28, 0.6, 20, **options)
    r = np.linspace(0.28, 0.6, 40)
    return pair.set_table(r, argon().energy(r).detach().numpy()[0])


def tethers(strength: float = 1.0) -> openmm.CustomExternalForce:
    """A weak spring for each particle; name and settings stay the same."""
    force = openmm.CustomExternalForce("k * z^2")
    force.addPerParticleParameter("k")
    for i in range(N):
        force.addParticle(i, [strength])
    force.setName("tethers")
    return force


def point_of(
    pair: SplinePair,
    *,
    length: float = LENGTH,
    mass: float = 39.948,
    temperature: float = TEMPERATURE,
    pressure: float | None = None,
    frequency: int = 5,
    strength: float = 1.0,
    constraints: tuple[tuple[int, int, float], ...] = (),
    site_weight: float = 0.5,
    more: openmm.Force | None = None,
    seed: int = 1,
    platform: str = "Reference",
    **attached: Any,
) -> StatePoint:
    """A small fluid with other forces, and a virtual site that nothing acts on."""
    box = np.eye(3) * length
    system = empty_system(N, box, mass)
    system.addParticle(0.0)
    system.setVirtualSite(N, openmm.TwoParticleAverageSite(0, 1, site_weight, 1 - site_weight))
    for constraint in constraints:
        system.addConstraint(*constraint)
    system.addForce(tethers(strength))
    if more is not None:
        system.addForce(more)
    if pressure is not None:
        system.addForce(openmm.MonteCarloBarostat(pressure, temperature, frequency))
    pair.attach(system, **{"atoms": range(N), **attached})
    positions = np.concatenate([lattice(N, box, 0.02, seed), [[0.0, 0.0, 0.0]]])
    simulation = simulate(system, positions, langevin(temperature, seed), platform)
    simulation.context.computeVirtualSites()
    return StatePoint(simulation, pair)


def make(
    *,
    pair: SplinePair | None = None,
    method: Any = "gauss-newton",
    counted: Any = range(10),
    value: float = 1.0,
    uncertainty: float = 0.1,
    weight: float = 1.0,
    noise: str = "auto",
    bar: float = 100.0,
    checkpoint: Path | None = None,
    **options: Any,
) -> Refinement:
    """A fit of a g(r) and a pressure; everything that is not an argument is always the same."""
    pair = spline() if pair is None else pair
    point = point_of(pair, **options)
    rdf = RDF(0.6, 12, atoms=counted)
    g = np.full(len(R), value)
    target = Target(point, rdf, R, g, uncertainty=uncertainty, weight=weight, noise=noise)
    pressure = Target(point, Pressure(), bar, uncertainty=50.0)
    return Refinement(pair, [target, pressure], method, checkpoint=checkpoint)


def run(fit: Refinement, rounds: int) -> Refinement:
    return fit.run(rounds, STEPS, EVERY, progress=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints at constant volume and at constant pressure."""
    folder = tmp_path_factory.mktemp("kept")
    paths = {"volume": folder / "volume.ckpt", "pressure": folder / "pressure.ckpt"}
    run(make(checkpoint=paths["volume"]), 1)
    run(make(checkpoint=paths["pressure"], pressure=100.0), 1)
    return paths


def another_force() -> openmm.Force:
    force = openmm.CustomExternalForce("0.1*z")
    force.setName("field")
    return force


def adam(**options: Any) -> TorchOptimizer:
    return TorchOptimizer(lambda p: torch.optim.Adam(p, **options))


POINT = "state point 0"
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "density": ({"length": 1.35}, f"{POINT}: the density in 1/nm\\^3 was 12.7447, is 11.3804;"),
    "mass": (
        {"mass": 20.0},
        f"{POINT}: number 0 of the masses in amu was 27 x 39.948, is 27 x 20.0",
    ),
    "another force": ({"more": another_force()}, f"{POINT}, forces: the field is new"),
    "parameters of another force": (
        {"strength": 1.1},
        f"{POINT}, forces, tethers: the Particles changed",
    ),
    "constraint": (
        {"constraints": ((0, 1, 0.4),)},
        rf"{POINT}: the constraints were \[\], are \[\[0.0, 1.0, 0.4\]\]",
    ),
    "virtual site": ({"site_weight": 0.4}, f"{POINT}: the virtual sites changed"),
    "exclusions": (
        {"exclusions": [(0, 1)]},
        rf"{POINT}, learned forces, SplinePair: the exclusions were \[\], are \[\[0, 1\]\]",
    ),
    "particles of the learned force": (
        {"atoms": range(N - 1)},
        f"{POINT}, learned forces, SplinePair: number 26 of the types of particles was 0, is -1",
    ),
    "temperature": ({"temperature": 121.0}, f"{POINT}: the temperature in K was 120, is 121;"),
    "constant pressure": ({"pressure": 100.0}, f"{POINT}: the pressure in bar was None, is 100.0"),
    "target": ({"value": 1.01}, r"target 0: number 0 of the values was 1, is 1.01 \(10 of 10"),
    "scalar target": ({"bar": 101.0}, "target 1: the values were 100, are 101;"),
    "uncertainty": (
        {"uncertainty": 0.11},
        "target 0: number 0 of the uncertainty was 0.1, is 0.11",
    ),
    "weight": ({"weight": 2.0}, "target 0: the weight was 1, is 2;"),
    "noise": ({"noise": "independent"}, "target 0: the noise was auto, is independent"),
    "atoms of the g(r)": (
        {"counted": range(1, 11)},
        r"target 0, observable: number 0 of the atoms was 0, is 1 \(10 of 10 differ\)",
    ),
    "core_slope": (
        {"pair": spline(core_slope=60.0)},
        "potential, options: the core_slope was 50, is 60",
    ),
    "roughness": (
        {"method": GaussNewton(GaussNewtonOptions(roughness=100.0))},
        "method, options: the roughness was 200000, is 100",
    ),
}
AT_PRESSURE: dict[str, tuple[dict[str, Any], str]] = {
    "pressure": ({"pressure": 101.0}, f"{POINT}: the pressure in bar was 100, is 101;"),
    "barostat": (
        {"pressure": 100.0, "frequency": 7},
        f"{POINT}, forces, MonteCarloBarostat: the frequency was 5, is 7",
    ),
}


def everything(fit: Refinement) -> tuple[Any, ...]:
    point = fit.states[0].state_point
    buffers = [buffer.numpy().tobytes() for buffer in fit.potential.buffers()]
    parameters = flat_parameters(fit.potential).numpy().tobytes()
    return parameters, buffers, list(fit.history), point.serialize(), fit.states[0].pool


def assert_refused(fit: Refinement, path: Path, message: str) -> None:
    """With these words, the fit as it was."""
    before = everything(fit)
    with pytest.raises(
        CheckpointError, match=f"belongs to another fit: (.*; )?{message}"
    ) as caught:
        fit.resume(path)
    assert caught.value.reason == "foreign"
    assert everything(fit) == before


@pytest.mark.parametrize("name", OTHERS)
def test_another_fit_is_refused_by_what_differs(kept: dict[str, Path], name: str) -> None:
    options, message = OTHERS[name]
    assert_refused(make(**options), kept["volume"], message)


@pytest.mark.parametrize("name", AT_PRESSURE)
def test_another_pressure_is_refused(kept: dict[str, Path], name: str) -> None:
    options, message = AT_PRESSURE[name]
    assert_refused(make(**options), kept["pressure"], message)


def test_another_rate_of_an_optimizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    run(make(method=adam(lr=0.01), checkpoint=path), 1)
    assert_refused(make(method=adam(lr=0.02)), path, "method, options: the lr was 0.01, is 0.02")
    assert len(make(method=adam(lr=0.01)).resume(path).history) == 1


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("at", ["volume", "pressure"])
def test_the_same_fit_is_taken_up_whatever_it_has_learned(
    kept: dict[str, Path], at: str, platform: str
) -> None:
    """From other positions, with other random numbers, on another platform."""
    options = {"pressure": 100.0} if at == "pressure" else {}
    fit = make(seed=5, platform=platform, **options).resume(kept[at])
    assert len(fit.history) == 1
    assert_refused(make(weight=3.0, **options), kept[at], "target 0: the weight was 1, is 3")
    if at == "pressure":  # the box has moved on: it is no part of the fit
        fit.states[0].state_point.simulation.step(20)
        assert len(fit.resume(kept[at]).history) == 1


def test_where_a_target_was_measured_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"

    def fit_of(order: tuple[int, int]) -> Refinement:
        pair = spline()
        points = [point_of(pair, seed=seed) for seed in (1, 2)]
        first = Target(points[0], Pressure(), 10.0, uncertainty=50.0)
        difference = FunctionOfAverages(torch.sub, [Pressure(), Pressure()], symbol="difference")
        chosen = [points[k] for k in order]
        return Refinement(pair, [first, Target(chosen, difference, 5.0, uncertainty=50.0)])

    fit = run(fit_of((0, 1)), 1)
    fit.save(path)
    message = r"target 1: number 0 of the state points was 0, is 1 \(2 of 2 differ\)"
    assert_refused(fit_of((1, 0)), path, message)
    assert len(fit_of((0, 1)).resume(path).history) == 1


def sampled_by(integrator: openmm.Integrator) -> Refinement:
    """A fit of the mean squared displacement in three steps of the Simulation's integrator."""
    pair, box = spline(), np.eye(3) * LENGTH
    system = empty_system(N, box, 39.948)
    pair.attach(system)
    liquid = StatePoint(simulate(system, lattice(N, box, 0.02), integrator), pair)
    msd = MSD(range(4), estimator="pathwise", gradient_every=10**6)
    t, value = 0.002 * np.arange(4), np.full(4, 1e-6)
    return Refinement(pair, [Target(liquid, msd, t, value, uncertainty=1.0)])


def test_the_dynamics_of_segments_are_part_of_it(tmp_path: Path) -> None:
    """Averages in equilibrium do not depend on the friction, but those along segments do."""
    path = tmp_path / "fit.ckpt"
    run(sampled_by(openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.002)), 1).save(path)
    other = sampled_by(openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.002))
    assert_refused(other, path, "target 0, integrator 0: the friction was 1, is 5")
    same = sampled_by(openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.002))
    assert len(same.resume(path).history) == 1


def of_function(function: Any, checkpoint: Path | None = None) -> Refinement:
    pair = spline()
    own = FunctionOfAverages(function, Pressure(), symbol="own")
    target = Target(point_of(pair), own, 1.0, uncertainty=50.0)
    return Refinement(pair, [target], checkpoint=checkpoint)


def test_what_a_function_of_averages_does_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    factor = 2.0
    run(of_function(lambda p: factor * p), 1).save(path)
    assert len(of_function(lambda p: factor * p).resume(path).history) == 1
    assert_refused(of_function(lambda p: factor + p), path, "target 0, .*: the function changed")
    assert_refused(of_function(lambda p: p.abs() * p), path, "target 0, .*: the function changed")
    factor = 3.0
    assert_refused(of_function(lambda p: factor * p), path, "target 0, .*: the function changed")


def test_what_does_not_say_what_it_is_is_told_so_before_any_md(tmp_path: Path) -> None:
    class Callable:
        def __call__(self, p: Any) -> Any:
            return p

    fit = of_function(Callable(), checkpoint=tmp_path / "fit.ckpt")
    with pytest.raises(ObservableError, match="a Callable has no plain form"):
        run(fit, 1)
    assert fit.md_steps == 0


def test_a_resumed_fit_keeps_its_prior_whatever_the_first_guess(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"

    def fit_from(guess: float) -> Refinement:
        pair = spline()
        pair.set_coefficients(guess * np.ones(tuple(pair.values.shape)))
        return Refinement(pair, [Target(point_of(pair), Pressure(), 10.0, uncertainty=50.0)])

    fit = run(fit_from(0.0), 1)
    fit.save(path)
    other = fit_from(0.5)
    assert not np.allclose(other.states[0].prior_mean, fit.states[0].prior_mean)
    other.resume(path)
    np.testing.assert_array_equal(other.states[0].prior_mean, fit.states[0].prior_mean)


# How it is said -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"volume": 21.499}, {"volume": 20.0}, ["the volume was 21.499, is 20"]),
        (
            {"potential": {"cutoff": 1.0}},
            {"potential": {"cutoff": 1.0 + 1e-14}},
            ["potential: the cutoff was 1, is 1.00000000000001"],
        ),
        (
            {"targets": [{"weight": 1.0}, {"weight": 1.0}]},
            {"targets": [{"weight": 1.0}, {"weight": 2.0}]},
            ["target 1: the weight was 1, is 2"],
        ),
        (
            {"atoms": [1, 2, 3]},
            {"atoms": [1, 5, 3]},
            ["number 1 of the atoms was 2, is 5 (1 of 3 differ)"],
        ),
        ({"atoms": [1, 2]}, {"atoms": [1]}, ["the atoms were [1, 2], are [1]"]),
        (
            {"atoms": list(range(50))},
            {"atoms": list(range(51))},
            ["the atoms were a list of 50, are one of 51"],
        ),
        (
            {"masses": {"shape": [99], "sha256": "a"}},
            {"masses": {"shape": [99], "sha256": "b"}},
            ["the masses changed"],
        ),
        ({"f": {"a": 1}}, {"f": {"b": 1}}, ["f: the a is missing", "f: the b is new"]),
        (
            {"text": "x" * 100 + "1" + "y" * 100},
            {"text": "x" * 100 + "2" + "y" * 100},
            [f"the text was ... {20 * 'x'}1{39 * 'y'} ..., is ... {20 * 'x'}2{39 * 'y'} ..."],
        ),
    ],
)
def test_differences_are_sentences(old: Any, new: Any, said: list[str]) -> None:
    assert differences(old, new) == said
