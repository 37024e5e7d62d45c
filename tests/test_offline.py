"""A fit of stored trajectories alone, against exact values: springs, whose frames are Gaussian."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from systems import empty_system, simulate
from torch import Tensor, nn

import openmm_diffsim as diffsim
from openmm_diffsim import Refinement, StatePoint, Target
from openmm_diffsim.errors import (
    CheckpointError,
    PotentialError,
    SamplingError,
    StatePointError,
    TargetError,
    UnitError,
)
from openmm_diffsim.io.trajectories import topology_of
from openmm_diffsim.units import beta

Array = NDArray[np.float64]

N, KELVIN, LENGTH = 12, 300.0, 3.0
BETA = beta(KELVIN)
STIFFNESS, FRAMES = 250.0, 600  # kJ/mol/nm^2


class Spring(diffsim.Potential):
    """U = k |x|^2 / 2 of every particle; ``log`` makes the parameter the logarithm of k."""

    energy_is_linear = True

    def __init__(self, k: float = STIFFNESS, log: bool = False, name: str = "spring") -> None:
        super().__init__(name=name)
        self.log = log
        self.is_linear = not log
        self.k = nn.Parameter(torch.tensor([np.log(k) if log else k], dtype=torch.float64))

    @property
    def stiffness(self) -> float:
        return float(self.coefficients().detach()[0])

    def coefficients(self, temperature: float | None = None) -> Tensor:
        return self.k.exp() if self.log else 1.0 * self.k


@diffsim.adapts(Spring)
class SpringAdapter(diffsim.Adapter):
    """A CustomExternalForce with a global parameter."""

    def build(self, system: openmm.System, options: Any) -> openmm.Force:
        name = f"k_{self.potential.name}"
        force = openmm.CustomExternalForce(f"{name}*(x^2+y^2+z^2)/2")
        force.addGlobalParameter(name, self.potential.stiffness)
        for i in range(system.getNumParticles()):
            force.addParticle(i)
        return force

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        return force if isinstance(force, openmm.CustomExternalForce) else None

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        self.force.setGlobalParameterDefaultValue(0, self.potential.stiffness)
        if context is not None:
            context.setParameter(self.force.getGlobalParameterName(0), self.potential.stiffness)

    def recorder(self, context: Any, particles: Any, trajectory: Any) -> diffsim.FeatureRecorder:
        return SpringRecorder()


class SpringRecorder(diffsim.FeatureRecorder):
    def features(self, positions: Array, box: Array | None) -> tuple[Array, Array]:
        return np.array([0.5 * np.sum(positions**2)]), np.zeros(1)


class Spread(diffsim.Observable):
    """<|x|^2> of a particle, nm^2: 3 kT / k."""

    n_values = 1
    histograms = ()

    def recorder(self, particles: Any) -> Any:
        return self

    def record(self, frame: Any, counts: Any) -> Array:
        return np.array([np.mean(np.sum(frame.positions**2, axis=1))])

    def values(self, records: Tensor, conditions: Any) -> Tensor:
        return records

    def identity(self) -> dict[str, Any]:
        return {"class": "Spread"}


def point_of(spring: diffsim.Potential, others: float = 0.0) -> StatePoint:
    """Springs, and others that are not learned of that stiffness."""
    system = empty_system(N, np.eye(3) * LENGTH)
    if others:
        force = openmm.CustomExternalForce("s*(x^2+y^2+z^2)/2")
        force.setName("others")
        force.addPerParticleParameter("s")
        for i in range(N):
            force.addParticle(i, [others])
        system.addForce(force)
    spring.attach(system)
    integrator = openmm.LangevinMiddleIntegrator(KELVIN, 5.0, 0.002)
    integrator.setRandomNumberSeed(3)
    return StatePoint(simulate(system, np.full((N, 3), 0.01), integrator), spring)


def drawn(k: float, frames: int = FRAMES, seed: int = 1, kelvin: float = KELVIN) -> Array:
    """Positions [frames, N, 3], exactly as springs of that stiffness have them."""
    spread = (1 / (beta(kelvin) * k)) ** 0.5
    return np.asarray(spread * np.random.default_rng(seed).standard_normal((frames, N, 3)))


def trajectory_of(positions: Array) -> mdtraj.Trajectory:
    trajectory = mdtraj.Trajectory(positions, topology_of(N))
    trajectory.unitcell_vectors = np.repeat(np.eye(3)[None] * LENGTH, len(positions), axis=0)
    return trajectory


def fit_of(
    spring: diffsim.Potential, k: float, error: float = 0.01, others: float = 0.0, **options: Any
) -> tuple[Refinement, StatePoint]:
    """Of <|x|^2> as springs of stiffness k have it, with a relative error."""
    point = point_of(spring, others)
    exact = 3 / (BETA * (k + others))
    target = Target(point, Spread(), exact, uncertainty=error * exact)
    return Refinement(spring, [target], **options), point


def solved(positions: Array, sampled: float, goal: float) -> float:
    """The stiffness at which frames have that <|x|^2> when they are reweighted."""
    u = 0.5 * np.sum(positions**2, axis=(1, 2))
    value = np.mean(np.sum(positions**2, axis=2), axis=1)

    def off(k: float) -> float:
        exponent = -BETA * (k - sampled) * u
        w = np.exp(exponent - exponent.max())
        return float(w @ value / w.sum() - goal)

    return float(brentq(off, 0.5 * sampled, 2 * sampled))


@pytest.mark.parametrize("log", [False, True])
def test_springs_are_found_from_frames_of_others(log: bool) -> None:
    spring, positions, goal = Spring(log=log), drawn(STIFFNESS), 1.1 * STIFFNESS
    fit, point = fit_of(spring, goal, 1e-4)
    fit.read(point, trajectory_of(positions))
    reach = fit.reweight()
    assert not reach.is_beyond and reach.share == 1.0 and "reach the optimum" in reach.sentence()
    exact = solved(positions.astype(np.float32).astype(float), STIFFNESS, 3 / (BETA * goal))
    table = fit.parameter_table()
    assert spring.stiffness == pytest.approx(exact, rel=2e-3)
    slope = spring.stiffness if log else 1.0
    assert abs(spring.stiffness - goal) < 4 * table.standard_error[0] * slope
    w = np.exp(-BETA * (spring.stiffness - STIFFNESS) * 0.5 * np.sum(positions**2, axis=(1, 2)))
    w /= w.sum()
    assert reach.n_effective[0] == pytest.approx(np.exp(-np.sum(w * np.log(w))), rel=1e-4)
    assert fit.md_steps == 0 and len(fit.history) == 1 and reach.n_frames == (FRAMES,)
    assert point.simulation.context.getParameter("k_spring") == spring.stiffness


def test_what_lies_beyond_the_frames_is_told_with_how_far_they_reach() -> None:
    spring = Spring()
    fit, point = fit_of(spring, 2.5 * STIFFNESS, 0.05)
    fit.read(point, trajectory_of(drawn(STIFFNESS)))
    reach = fit.reweight()
    assert reach.is_beyond and 0.1 < reach.share < 0.9
    assert 50 <= reach.n_effective[0] < 100
    assert 1.1 * STIFFNESS < spring.stiffness < 2 * STIFFNESS
    assert "beyond" in reach.sentence() and "sample there" in reach.sentence()
    assert not fit.converged and reach.sentence() in fit.verdict().reasons()
    again = fit.reweight()  # what is reached is so still
    assert again.share == pytest.approx(reach.share, abs=0.1)
    # There it is sampled, and these frames lead on.
    for _ in range(4):
        fit.read(point, trajectory_of(drawn(spring.stiffness, seed=2)))
        if not fit.reweight().is_beyond:
            break
    assert spring.stiffness == pytest.approx(2.5 * STIFFNESS, rel=0.05)
    assert fit.converged, fit.verdict().reasons()


# What is read -------------------------------------------------------------------------------------


def pieces(trajectory: mdtraj.Trajectory, alive: list[int]) -> Iterator[mdtraj.Trajectory]:
    """One after the other, and how many of them are still in memory."""
    references: list[Any] = []
    for first in range(0, len(trajectory), 50):
        piece = trajectory[first : first + 50]
        references.append(weakref.ref(piece))
        yield piece
        del piece
        gc.collect()
        alive.append(sum(reference() is not None for reference in references))


@pytest.mark.parametrize("kind", ["dcd", "xtc", "trr", "h5", "pdb"])
def test_a_file_of_any_kind_gives_what_the_frames_give(kind: str, tmp_path: Path) -> None:
    if kind == "h5":
        pytest.importorskip("tables", reason="PyTables, which HDF5 takes, is not here")
    spring, positions = Spring(2.5), drawn(2.5, 30)
    trajectory_of(positions).save(str(tmp_path / f"run.{kind}"))
    fit, point = fit_of(spring, 2.6)
    samples = fit.read(point, tmp_path / f"run.{kind}")
    rounding = {"xtc": 1e-3, "pdb": 1e-4}.get(kind, 1e-6)
    exact = 0.5 * np.sum(positions**2, axis=(1, 2))
    bound = 3 * rounding * np.sqrt(np.sum(positions**2, axis=(1, 2)).max())
    np.testing.assert_allclose(samples.features[:, 0], exact, rtol=1e-6, atol=bound)


def test_pieces_paths_and_iterators_are_the_same_frames(tmp_path: Path) -> None:
    """A chunk at a time is in memory; several paths are several runs."""
    spring, alive = Spring(), []  # type: ignore[var-annotated]
    whole = trajectory_of(drawn(STIFFNESS, 400))
    paths = [tmp_path / "a.dcd", tmp_path / "b.trr"]
    whole[:150].save(str(paths[0]))
    whole[150:].save(str(paths[1]))
    found = []
    for source in (
        whole,
        pieces(whole, alive),
        paths,
        mdtraj.iterload(str(paths[1]), top=whole.top),
    ):
        fit, point = fit_of(spring, STIFFNESS)
        found.append(fit.read(point, source))
        fit.reweight()
        spring.k.data[:] = STIFFNESS
    one, in_pieces, several, part = found
    np.testing.assert_array_equal(in_pieces.features, one.features)
    np.testing.assert_allclose(several.features, one.features, rtol=1e-6)
    np.testing.assert_array_equal(part.features, several.features[150:])
    assert [run.n_frames for run in several.runs] == [150, 250] and len(in_pieces.runs) == 1
    assert max(alive) <= 1


def test_frames_of_several_stiffnesses_and_temperatures_are_one_fit() -> None:
    """Sampled with other parameters than the first guess, by name; others act besides."""
    spring, others, goal = Spring(), 50.0, 1.3 * STIFFNESS
    fit, point = fit_of(spring, goal, 0.01, others=others)
    first = drawn(0.9 * STIFFNESS + others, seed=1)
    hot = drawn(1.5 * STIFFNESS + others, seed=2, kelvin=320.0)
    fit.read(point, trajectory_of(first), {"k": 0.9 * STIFFNESS})
    samples = fit.read(point, trajectory_of(hot), torch.tensor([1.5 * STIFFNESS]), temperature=320)
    assert spring.stiffness == STIFFNESS
    np.testing.assert_allclose(samples.rest_energy, others * samples.features[:, 0], rtol=1e-4)
    assert samples.temperature == KELVIN and samples.runs[0].temperature == 320.0
    assert not fit.reweight().is_beyond
    error = fit.parameter_table().standard_error[0]
    assert error < 0.1 * goal
    assert abs(spring.stiffness - goal) < 4 * error


def test_frames_too_far_from_the_first_guess_are_refused_with_what_to_do() -> None:
    spring = Spring(3 * STIFFNESS)
    fit, point = fit_of(spring, 3 * STIFFNESS)
    with pytest.raises(StatePointError, match=r"nothing was sampled.*read\(\)"):
        fit.reweight()
    fit.read(point, trajectory_of(drawn(STIFFNESS)), {"k": STIFFNESS})
    with pytest.raises(SamplingError, match=r"do not reach the present.* of 600 are.*begin from"):
        fit.reweight()
    assert spring.stiffness == 3 * STIFFNESS and not fit.history


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_too_few_frames_are_refused_with_the_number_wanted(frames: int) -> None:
    fit, point = fit_of(Spring(), STIFFNESS)
    fit.read(point, trajectory_of(drawn(STIFFNESS, frames)))
    with pytest.raises(SamplingError, match=rf"got {frames} frames .* expected at least 10"):
        fit.reweight()
    assert not fit.history
    fit.read(point, trajectory_of(drawn(STIFFNESS, 10 - frames, seed=2)))
    assert fit.reweight().n_frames == (10,)


@pytest.mark.parametrize(
    "parameters", [{"q": 1.0}, {"k": [1.0, 2.0]}, {"k": "much"}, {"k": np.nan}, {"k": None}]
)
def test_parameters_that_a_potential_lacks_are_refused(parameters: Any) -> None:
    fit, point = fit_of(Spring(), STIFFNESS)
    with pytest.raises(PotentialError, match=r"parameters: .* k \[1\]"):
        fit.read(point, trajectory_of(drawn(STIFFNESS, 10)), parameters)
    with pytest.raises(TargetError, match="the state point of a target of this fit"):
        fit.read(point_of(Spring()), trajectory_of(drawn(STIFFNESS, 10)))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"temperature": -5}, "temperature: got -5.0, expected a number from 1e-06"),
        ({"temperature": 0.0}, "temperature: got 0.0, expected a number from 1e-06"),
        ({"temperature": float("inf")}, "temperature: got inf"),
        ({"pressure": -1e9}, "pressure: got -1000000000.0, expected a number from -1000000"),
    ],
)
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(
    state: dict[str, float], words: str
) -> None:
    spring = Spring()
    fit, point = fit_of(spring, STIFFNESS)
    with pytest.raises(UnitError, match=words):
        fit.read(point, trajectory_of(drawn(STIFFNESS, 10)), {"k": 1.0}, **state)
    assert fit.states[0].pool is None and spring.stiffness == STIFFNESS


@pytest.mark.parametrize("trajectory", [None, 5, [None], np.zeros((2, 3))])
def test_what_is_no_trajectory_is_told(trajectory: Any) -> None:
    fit, point = fit_of(Spring(), STIFFNESS)
    with pytest.raises(SamplingError, match=r"trajectory: expected a path, .*, got .*[a-zA-Z]"):
        fit.read(point, trajectory)


def test_a_trajectory_that_is_read_twice_is_told(recwarn: pytest.WarningsRecorder) -> None:
    fit, point = fit_of(Spring(), STIFFNESS)
    for seed in (1, 2):
        fit.read(point, trajectory_of(drawn(STIFFNESS, 20, seed)))
    assert not any("already" in str(w.message) for w in recwarn.list)
    with pytest.warns(UserWarning, match="20 of 20 frames are there already"):
        fit.read(point, trajectory_of(drawn(STIFFNESS, 20, 2)))


class Known(Spring):
    """A logarithm that is known to a tenth beforehand."""

    def parameter_prior(self) -> tuple[Array, Array]:
        return self.k.detach().numpy().copy(), np.array([0.1])


@diffsim.adapts(Known)
class KnownAdapter(SpringAdapter):
    pass


def test_a_number_in_place_of_its_logarithm_is_refused() -> None:
    fit, point = fit_of(Known(log=True), STIFFNESS)
    with pytest.raises(TargetError, match=r"standard deviations .* the logarithm of a sigma, say"):
        fit.read(point, trajectory_of(drawn(STIFFNESS, 10)), {"k": STIFFNESS})
    samples = fit.read(point, trajectory_of(drawn(200.0, 10)), {"k": np.log(200.0)})
    np.testing.assert_allclose(samples.runs[0].coefficients, 200.0)


def test_a_trajectory_that_drifts_is_told() -> None:
    fit, point = fit_of(Spring(), STIFFNESS)
    cold = drawn(2 * STIFFNESS, 300, 1)
    with pytest.warns(UserWarning, match="drifts, by .* leave out its beginning"):
        fit.read(point, trajectory_of(np.concatenate([cold, drawn(STIFFNESS, 300)])))


@pytest.mark.parametrize(("stiff", "told"), [(STIFFNESS, 0), (2e6, 1)])
def test_rounding_is_told_where_it_is_a_part_of_the_fluctuations(
    stiff: float, told: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """An XTC file's 0.001 nm beside springs that fluctuate by 0.1 or by 0.001 nm."""
    trajectory_of(drawn(stiff, 100)).save_xtc(str(tmp_path / "run.xtc"))
    fit, point = fit_of(Spring(stiff), stiff)
    fit.read(point, tmp_path / "run.xtc")
    rounded = [str(w.message) for w in recwarn.list if "rounded to 0.001 nm" in str(w.message)]
    assert len(rounded) == told
    if told:
        # of x^2 per coordinate, exactly: 4 x^2 d^2 + d^4 about d^2, over 2 x^4; d = 0.001 / 12^.5
        x2 = 1 / (BETA * stiff) + 1e-6 / 12
        exact = (4 * x2 * 1e-6 / 12 + (1 / 80 - 1 / 144) * 1e-12) / (2 * x2**2)
        share = float(rounded[0].split("adds ")[1].split(" of its")[0])
        assert share == pytest.approx(exact, rel=0.8)  # three errors, of 30 frames


# A fit like any other -----------------------------------------------------------------------------


def test_what_was_found_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    spring = Spring().set_prior({"k": 100.0})
    fit, point = fit_of(spring, 1.2 * STIFFNESS, checkpoint=path)
    fit.read(point, trajectory_of(drawn(STIFFNESS)))
    fit.reweight()
    again = Spring(2 * STIFFNESS).set_prior({"k": 100.0})
    other, _ = fit_of(again, 1.2 * STIFFNESS)
    other.resume(path)
    assert again.stiffness == spring.stiffness
    assert other._progress.began == [STIFFNESS]
    assert other.verdict() == fit.verdict()
    mine, kept = fit.parameter_table(), other.parameter_table()
    np.testing.assert_array_equal(kept.standard_error, mine.standard_error)
    assert str(kept) == str(mine) and "of prior" in str(mine)
    with pytest.raises(CheckpointError, match="standard deviations"):
        fit_of(Spring().set_prior({"k": 50.0}), 1.2 * STIFFNESS)[0].resume(path)
    other.run(2, 2000, 20, progress=False)  # with the stored frames in its pool
    assert len(other.history) == 2 or other.converged
    if other.md_steps:
        assert len(other.states[0].frames.runs) == 2


def test_a_posterior_is_that_of_prior_and_data() -> None:
    """1 / s^2 = 1 / s_0^2 + J^2 / C, and the value between both by these weights."""
    spread = 0.05 * STIFFNESS
    spring = Spring().set_prior({"k": spread})
    fit, point = fit_of(spring, 1.1 * STIFFNESS, 0.05)
    fit.read(point, trajectory_of(drawn(STIFFNESS, 4000)))
    assert not fit.reweight().is_beyond
    (comparison,) = fit.view().compare(fit.method.options)  # type: ignore[attr-defined]
    slope = comparison.jacobian[0, 0]
    variance = (comparison.own_noise + comparison.target_noise).diagonal()[0]
    posterior = (1 / spread**2 + slope**2 / variance) ** -0.5
    off = comparison.residual[0] * slope / variance + (spring.stiffness - STIFFNESS) / spread**2
    assert abs(off * posterior) < 0.05  # of a standard error from the minimum
    table = fit.parameter_table()
    assert table.prior[0] == spread
    assert table.posterior_over_prior[0] == pytest.approx(posterior / spread, rel=0.1)
    assert 0.5 < table.posterior_over_prior[0] < 0.9
    assert STIFFNESS < spring.stiffness < 1.1 * STIFFNESS


def test_other_forces_that_are_edited_between_rounds_are_refused_before_any_md() -> None:
    spring = Spring()
    fit, point = fit_of(spring, STIFFNESS, 0.05, others=50.0)
    fit.run(1, 2000, 20, equilibration=1000, progress=False)
    steps, k = fit.md_steps, spring.stiffness
    fit._progress.verdict = None  # it may have converged, and there would be no more to do
    force = point.simulation.system.getForce(0)
    force.setParticleParameters(3, 3, [60.0])
    force.updateParametersInContext(point.simulation.context)
    with pytest.raises(StatePointError, match="others changed since the earlier frames"):
        fit.run(2, 2000, 20, progress=False)
    with pytest.raises(StatePointError, match="others changed since the earlier frames"):
        fit.read(point, trajectory_of(drawn(300.0, 20)))
    assert fit.md_steps == steps and spring.stiffness == k
    force.setParticleParameters(3, 3, [50.0])
    force.updateParametersInContext(point.simulation.context)
    fit.run(2, 2000, 20, progress=False)
    assert len(fit.history) == 2


def test_of_two_springs_the_one_that_is_learned_makes_up_for_the_other() -> None:
    """As one spring does beside a force that is not learned, to rounding."""
    first, second = Spring(name="first"), Spring(0.5 * STIFFNESS, name="second")
    both = (first + second).learn_only(["first"])
    goal, tables = 1.2 * STIFFNESS, []
    for spring, k, others in ((both, goal + 0.5 * STIFFNESS, 0.0), (Spring(), goal, 125.0)):
        fit, point = fit_of(spring, k, others=others)
        fit.read(point, trajectory_of(drawn(1.5 * STIFFNESS)))
        fit.reweight()
        tables.append(fit.parameter_table())
    assert tables[0].names == ["first.k"] and second.stiffness == 0.5 * STIFFNESS
    np.testing.assert_allclose(tables[0].values, tables[1].values, rtol=1e-6)
    np.testing.assert_allclose(tables[0].standard_error, tables[1].standard_error, rtol=1e-4)
    assert first.stiffness == pytest.approx(goal, rel=0.1)
