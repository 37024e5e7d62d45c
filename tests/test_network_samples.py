"""Samples of a network: energies evaluated anew, weights, averages and their gradients."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from networks import CUTOFF, LENGTH, Embedded, embedded, fluid
from systems import Array, assert_parameter_gradient, topology
from torch import Tensor, nn

import openmm_diffsim as diffsim
from openmm_diffsim import RDF, NetworkPotential, Pressure, Samples, SplinePair, StatePoint
from openmm_diffsim.engine.trajectory import sample_trajectory
from openmm_diffsim.errors import FramesError, SamplingError, StatePointError
from openmm_diffsim.io import FrameWriter
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters
from openmm_diffsim.samples import EvaluatedFrames, Run
from openmm_diffsim.samples.stored_run import NetworkParticles, StoredRun
from openmm_diffsim.units import beta

RDF_ = RDF(0.5, 10)
PRESSURE = Pressure()


def moved(potential: NetworkPotential, by: float = 0.02, seed: int = 3) -> None:
    """Parameters that differ a little from those sampled."""
    theta = flat_parameters(potential)
    noise = torch.randn(len(theta), generator=torch.Generator().manual_seed(seed))
    set_flat_parameters(potential, theta + by * noise.double())


def pooled(pressure: float | None = None, **options: Any) -> tuple[NetworkPotential, Samples]:
    """Two runs with different parameters, and present ones that differ from both."""
    potential = embedded()
    point = fluid(potential, pressure=pressure, **options)
    parts = []
    for _ in range(2):
        parts.append(point.sample(400, 10, [RDF_, PRESSURE], equilibration=100))
        moved(potential)
    return potential, Samples.pool(parts)


def loss_of(samples: Samples) -> Tensor:
    target = torch.linspace(0, 2, RDF_.n_values, dtype=torch.float64)
    return ((samples.average(RDF_) - target) ** 2).mean()


@pytest.mark.parametrize("observable", [RDF_, PRESSURE], ids=["RDF", "Pressure"])
@pytest.mark.parametrize("ensemble", ["NVT", "NPT"])
def test_gradient_equals_finite_differences(observable: Any, ensemble: str) -> None:
    potential, samples = pooled(300.0 if ensemble == "NPT" else None)
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=observable.n_values))
    assert_parameter_gradient(potential, lambda: samples.average(observable) @ direction)


def test_gradient_of_a_loss_after_another_temperature_equals_finite_differences() -> None:
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.4, 1000.0)
    potential, samples = pooled(forces=(bond,))
    elsewhere = samples.reweight(115.0)
    assert np.ptp(samples.rest_energy) > 1
    assert_parameter_gradient(potential, lambda: loss_of(elsewhere))


def test_a_pair_potential_as_a_network_has_the_same_averages_and_gradients() -> None:
    """The same frames, once by basis sums and once evaluated."""
    pair = SplinePair(0.28, CUTOFF, 20)
    with torch.no_grad():
        pair.values[0, :4] = torch.tensor([30.0, 8.0, 1.0, -0.5])
    network = pair.as_network()
    run = fluid(embedded()).sample(600, 10, [], equilibration=100)
    x, boxes = run.learned.runs[0][0].frames.read(np.arange(len(run)))
    trajectory = mdtraj.Trajectory(x, mdtraj.Topology.from_openmm(topology(27)))
    trajectory.unitcell_vectors = boxes.astype(np.float32)
    found = []
    for potential in (pair, network):
        context = fluid(potential).simulation.context
        samples = sample_trajectory(
            potential, trajectory, context, [RDF_, PRESSURE], temperature=120.0
        )
        found.append(samples)
    with torch.no_grad():
        pair.values.add_(0.02 * torch.randn(pair.values.shape, dtype=torch.float64))
    for observable in (RDF_, PRESSURE):
        values, gradients = [], []
        for samples in found:
            value = samples.average(observable)
            (gradient,) = torch.autograd.grad(value.square().sum(), pair.values)
            values.append(value.detach())
            gradients.append(gradient)
        # A DCD file is in single precision.
        torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * gradients[0].abs().max())
    assert found[0].n_effective() == pytest.approx(found[1].n_effective(), rel=1e-4)


def with_batch(samples: Samples, batch: int) -> Samples:
    assert isinstance(samples.learned, EvaluatedFrames)
    fresh = [
        (replace(run, found=type(run.found)()), indices) for run, indices in samples.learned.runs
    ]
    return replace(samples, learned=replace(samples.learned, batch=batch, runs=tuple(fresh)))


def test_the_batch_decides_nothing_but_memory() -> None:
    potential, samples = pooled()
    parameters = [potential.network.w, potential.network.v]
    found = []
    for batch in (1, 7, 1000):
        loss = loss_of(with_batch(samples, batch))
        found.append([loss.detach(), *torch.autograd.grad(loss, parameters)])
    for one, other in zip(found[0], found[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    for one, other in zip(found[0], found[2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("observable", [RDF_, PRESSURE], ids=["RDF", "Pressure"])
def test_jacobian_is_that_of_autograd(observable: Any) -> None:
    potential, samples = pooled()
    jacobian = torch.from_numpy(samples.at().jacobian(observable))
    parameters = [potential.network.w, potential.network.v]
    for value, row in zip(samples.average(observable), jacobian, strict=True):
        parts = torch.autograd.grad(value, parameters, retain_graph=True)
        expected = torch.cat([part.reshape(-1) for part in parts])
        torch.testing.assert_close(row, expected, rtol=1e-8, atol=1e-10)


def test_gradient_with_error_bars_is_that_of_autograd() -> None:
    potential, samples = pooled()

    def loss(s: Samples) -> Tensor:
        return loss_of(s) + 1e-7 * s.average(PRESSURE)[0] ** 2

    gradient, error = samples.gradient(loss)
    parts = torch.autograd.grad(loss(samples), [potential.network.w, potential.network.v])
    expected = np.concatenate([part.numpy().ravel() for part in parts])
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-12)
    assert np.all(error > 0) and np.all(np.isfinite(error))


# What is evaluated, and when ----------------------------------------------------------------------


def counted(potential: NetworkPotential, act: Callable[[], Any]) -> int:
    network = potential.network
    assert isinstance(network, Embedded)
    before = network.evaluated
    act()
    return network.evaluated - before


def test_energies_are_evaluated_once_for_each_parameter_set() -> None:
    potential, samples = pooled()
    assert counted(potential, samples.n_effective) == 3 * len(samples)  # two runs and the present
    assert counted(potential, samples.n_effective) == 0
    assert counted(potential, lambda: loss_of(samples).backward()) == len(samples)
    moved(potential)
    assert counted(potential, samples.n_effective) == len(samples)


class _Interrupting(Embedded):
    """Interrupted at the given number of frames."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _get_name(self) -> str:
        return "Embedded"  # which it is but for that

    def energies(self, positions: Tensor, boxes: Tensor | None) -> Tensor:
        if self.evaluated >= self.at:
            self.at = 10**9
            raise KeyboardInterrupt
        return super().energies(positions, boxes)


@pytest.mark.parametrize("again", ["in the same process", "from the files"])
def test_an_interrupted_evaluation_goes_on_where_it_stopped(again: str, tmp_path: Path) -> None:
    potential = embedded()
    samples = fluid(potential).sample(
        400, 10, [RDF_], equilibration=50, trajectory=tmp_path / "run.dcd"
    )
    samples.save(tmp_path / "run.npz")
    expected = samples.run_energies()
    halting = embedded()
    halting.network = _Interrupting(25)

    def loaded() -> Samples:
        part = Samples.load(tmp_path / "run.npz", halting, [RDF_])
        return replace(part, learned=replace(part.learned, batch=5))

    first = loaded()
    with pytest.raises(KeyboardInterrupt):
        first.run_energies()
    second = first if again == "in the same process" else loaded()
    assert counted(halting, second.run_energies) == 15
    np.testing.assert_array_equal(second.run_energies(), expected)
    assert not list(tmp_path.glob("*.partial"))


def test_progress_that_was_damaged_does_not_count(tmp_path: Path) -> None:
    potential = embedded()
    samples = fluid(potential).sample(300, 10, [], trajectory=tmp_path / "run.dcd")
    samples.save(tmp_path / "run.npz")
    halting = embedded()
    halting.network = _Interrupting(20)

    def loaded() -> Samples:
        part = Samples.load(tmp_path / "run.npz", halting, [])
        return replace(part, learned=replace(part.learned, batch=5))

    with pytest.raises(KeyboardInterrupt):
        loaded().run_energies()
    partial = tmp_path / "run.energy.partial"
    data = partial.read_bytes()
    partial.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    again = loaded()
    assert counted(halting, again.run_energies) == 30
    np.testing.assert_array_equal(again.run_energies(), samples.run_energies())


def test_samples_are_kept_in_files(tmp_path: Path) -> None:
    potential = embedded()
    point = fluid(potential, pressure=300.0)
    samples = point.sample(300, 10, [RDF_, PRESSURE], trajectory=tmp_path / "a.dcd")
    moved(potential)
    both = samples + point.sample(300, 10, [RDF_, PRESSURE], trajectory=tmp_path / "b.dcd")
    both.save(tmp_path / "both.npz")
    again = Samples.load(tmp_path / "both.npz", potential, [RDF_, PRESSURE])
    for observable in (RDF_, PRESSURE):
        np.testing.assert_array_equal(
            again.estimate(observable).covariance, both.estimate(observable).covariance
        )
    with pytest.raises(StatePointError, match="records of 2 observables, got 1"):
        Samples.load(tmp_path / "both.npz", potential, [RDF_])
    with pytest.raises(StatePointError, match="its kind was NetworkPotential, got SplinePair"):
        Samples.load(tmp_path / "both.npz", SplinePair(0.3, 0.6, 9), [RDF_, PRESSURE])
    shutil.copytree(tmp_path, tmp_path / "moved")
    (tmp_path / "a.dcd").unlink()
    there = Samples.load(tmp_path / "moved/both.npz", potential, [RDF_, PRESSURE])
    np.testing.assert_array_equal(there.run_energies(), both.run_energies())
    with pytest.raises(FramesError, match="the samples need that file"):
        Samples.load(tmp_path / "both.npz", potential, [RDF_, PRESSURE])


def test_what_does_not_go_is_refused(tmp_path: Path) -> None:
    point = fluid(embedded())
    samples = point.sample(100, 10, [])
    with pytest.raises(StatePointError, match="has no features"):
        _ = samples.features
    with pytest.raises(StatePointError, match="name one with sample"):
        samples.save(tmp_path / "x.npz")
    pair: StatePoint = fluid(SplinePair(0.3, 0.6, 12))
    with pytest.raises(SamplingError, match="a pair potential needs none"):
        pair.sample(100, 10, [], trajectory=tmp_path / "x.dcd")


def test_molecules_are_kept_whole_and_near_the_origin() -> None:
    """Far from the origin single precision would cost digits."""
    bond = openmm.HarmonicBondForce()
    for i in range(0, 26, 2):
        bond.addBond(i, i + 1, 0.35, 10_000.0)
    potential = embedded()
    point = fluid(potential, forces=(bond,))
    state = point.simulation.context.getState(positions=True)
    x = state.getPositions(asNumpy=True)._value + 50 * LENGTH
    point.simulation.context.setPositions(x)
    samples = point.sample(200, 10, [PRESSURE])
    stored, boxes = samples.learned.runs[0][0].frames.read(np.arange(len(samples)))
    assert np.abs(stored).max() < 2.5 * LENGTH
    assert np.linalg.norm(stored[:, 0] - stored[:, 1], axis=1).max() < 0.6
    energies = diffsim.NetworkPotential.energies(
        potential, torch.from_numpy(stored), torch.from_numpy(boxes)
    )
    np.testing.assert_allclose(
        energies.detach().numpy(), samples.run_energies() - samples.rest_energy, rtol=1e-12
    )


@pytest.mark.parametrize("room", [0, 2000, 2**26])
def test_where_a_batch_is_one_frame_it_is_evaluated_once(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as there is room for gradients, of 240 bytes each."""
    monkeypatch.setattr("openmm_diffsim.samples.stored_run._KEPT_BYTES", room)
    potential, samples = pooled()
    single = with_batch(samples, 1)
    kept = min(len(samples), room // 240)
    single.n_effective()
    moved(potential)

    def loss(s: Samples) -> Tensor:
        return loss_of(s) + 1e-7 * s.average(PRESSURE)[0] ** 2

    # energies once or twice, virials once or twice; a second average asks for gradients again
    assert counted(potential, lambda: loss_of(single).backward()) == 2 * len(samples) - kept
    assert counted(potential, lambda: loss_of(single).backward()) == len(samples) - kept
    parameters = [potential.network.w, potential.network.v]
    found = torch.autograd.grad(loss(single), parameters)
    expected = torch.autograd.grad(loss(with_batch(samples, 7)), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    half = single.relevant(2.0)  # other frames of the same runs
    found = torch.autograd.grad(loss_of(half), parameters)
    expected = torch.autograd.grad(loss_of(with_batch(half, 7)), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_value_alone_takes_no_gradients() -> None:
    potential, samples = pooled()
    single = with_batch(samples, 1)
    single.n_effective()
    with torch.no_grad():
        single.average(RDF_)
    single.estimate(RDF_)
    assert counted(potential, lambda: loss_of(single).backward()) == len(samples)


def test_several_averages_differentiate_each_frame_once() -> None:
    potential, samples = pooled()
    other = RDF(0.6, 4)
    samples.records[other] = samples.records[RDF_][:, 6:] ** 2  # type: ignore[index]
    samples.n_effective()

    def together() -> Tensor:
        view = samples.at()
        return torch.cat([view.average(RDF_), view.average(other)]).square().sum()

    def apart() -> Tensor:
        return torch.cat([samples.average(RDF_), samples.average(other)]).square().sum()

    assert counted(potential, lambda: together().backward()) == len(samples)
    assert counted(potential, lambda: apart().backward()) == 2 * len(samples)
    parameters = [potential.network.w, potential.network.v]
    for one, another in zip(
        torch.autograd.grad(together(), parameters),
        torch.autograd.grad(apart(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, another, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(together(), apart())


# Error bars -------------------------------------------------------------------------------------

KELVIN = 300.0
BETA = beta(KELVIN)
GRID = torch.linspace(-1.2, 1.2, 6001, dtype=torch.float64)


class Wells(nn.Module):
    """Particles that do not see each other, each in U(x) = k x^2 / 2 + a tanh(b x - c)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([40.0, 4.0, 3.0, 0.5], dtype=torch.float64))

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        return self.of(positions[:, 0]).sum()

    def energies(self, positions: Tensor, boxes: Tensor | None) -> Tensor:
        return self.of(positions[..., 0]).sum(dim=1)

    def of(self, x: Tensor) -> Tensor:
        k, a, b, c = self.theta
        return 0.5 * k * x**2 + a * torch.tanh(b * x - c)

    def density(self) -> Tensor:
        """Of one particle on the grid, normalised."""
        return torch.softmax(-BETA * self.of(GRID), dim=0)


class Moments(diffsim.Observable):
    """Of a particle: <x> and <x^2>, nm and nm^2, from all of them."""

    n_values = 2

    @staticmethod
    def of(x: Tensor) -> Tensor:
        return torch.stack([x, x**2], dim=-1)

    def values(self, records: Tensor, conditions: Any) -> Tensor:
        return records


MOMENTS = Moments()


def loss_of_moments(mean: Tensor) -> Tensor:
    """Nonlinear in the averages: 10 <x>^2 + 100 (<x^2> - 0.1)^2."""
    return 10 * mean[0] ** 2 + 100 * (mean[1] - 0.1) ** 2


@dataclass
class Drawn:
    """Exact frames of four particles in their wells, of two parameter sets, and the truth."""

    network: Wells
    sets: list[Array]  # parameters sampled with
    learned: list[EvaluatedFrames]  # all frames of each
    records: list[Array]

    def samples(self, potential: NetworkPotential, repeat: int, frames: int) -> Samples:
        """Those of one repeat, both sets pooled."""
        some = np.arange(repeat * frames, (repeat + 1) * frames)
        parts = []
        for theta, learned, records in zip(self.sets, self.learned, self.records, strict=True):
            keep = np.isin(np.arange(len(records)), some)
            parts.append(
                Samples(
                    potential=potential,
                    runs=(Run(theta, KELVIN, None, frames, 1),),
                    learned=learned.select(keep),
                    volume=np.full(frames, np.nan),
                    rest_energy=np.zeros(frames),
                    records={MOMENTS: records[some]},
                    temperature=KELVIN,
                )
            )
        return Samples.pool(parts)


def drawn(potential: NetworkPotential, frames: int, particles: int, path: Path) -> Drawn:
    network = potential.network
    assert isinstance(network, Wells)
    rng = np.random.default_rng(11)
    start = network.theta.detach().clone()
    sets, learned, records = [], [], []
    for n, change in enumerate(([4.0, 0.5, 0.0, 0.2], [-4.0, -0.5, 0.4, -0.2])):
        with torch.no_grad():
            network.theta.copy_(start + torch.tensor(change))
        cumulative = np.cumsum(network.density().detach().numpy())
        x = np.interp(rng.random((frames, particles)), cumulative, GRID.numpy())
        writer = FrameWriter(path / f"{n}.dcd")
        for row in x:
            writer.write(np.stack([row, 0 * row, 0 * row], axis=1), None)
        each = NetworkParticles(*(np.arange(particles) * k for k in (1, 0, 1)))
        run = StoredRun(writer.frames(), each)
        sets.append(network.theta.detach().numpy().copy())
        learned.append(EvaluatedFrames(potential, ((run, np.arange(frames)),)))
        records.append(Moments.of(torch.from_numpy(x)).mean(dim=1).numpy())
    with torch.no_grad():
        network.theta.copy_(start)
    return Drawn(network, sets, learned, records)


def test_error_bars_of_averages_and_gradients_cover_the_truth(tmp_path: Path) -> None:
    """95 % intervals of 200 repeats, with parameters that nothing was sampled with."""
    repeats, frames = 200, 60
    potential = NetworkPotential(Wells())
    all_frames = drawn(potential, repeats * frames, 4, tmp_path)
    network = all_frames.network
    exact_mean = network.density() @ Moments.of(GRID)
    (exact_slope,) = torch.autograd.grad(loss_of_moments(exact_mean), network.theta)
    truth = np.concatenate([exact_mean.detach().numpy(), exact_slope.numpy()])

    def found(samples: Samples) -> tuple[Array, Array]:
        estimate = samples.estimate(MOMENTS)
        gradient, error = samples.gradient(lambda s: loss_of_moments(s.average(MOMENTS)))
        return np.concatenate([estimate.value, gradient]), np.concatenate(
            [estimate.standard_error, error]
        )

    pairs = [found(all_frames.samples(potential, n, frames)) for n in range(repeats)]
    values, errors = (np.array(column) for column in zip(*pairs, strict=True))
    covered = (np.abs(values - truth) < 1.96 * errors).mean(axis=0)
    assert ((covered >= 0.90) & (covered <= 0.99)).all(), covered
    together, error = found(all_frames.samples(potential, 0, 30 * frames))
    assert (np.abs(together - truth) < 3 * error).all()
