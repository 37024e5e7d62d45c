"""A kind of potential that the package knows nothing of is sampled, reweighted, summed and kept."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from networks import embedded
from numpy.typing import NDArray
from systems import (
    TEMPERATURE,
    argon,
    assert_parameter_gradient,
    context_of,
    empty_system,
    energy_and_forces,
    langevin,
    lattice,
    simulate,
)
from torch import Tensor, nn

import openmm_diffsim as diffsim
from openmm_diffsim import Recording, Samples, SamplingJob, StatePoint
from openmm_diffsim.engine.recorder import FrameRecorder, configuration
from openmm_diffsim.errors import AttachError, ObservableError, SegmentError, StatePointError
from openmm_diffsim.potentials import Potential, flat_parameters, set_flat_parameters
from openmm_diffsim.potentials.adapter import _ADAPTERS
from openmm_diffsim.samples import Features
from openmm_diffsim.units import beta

Array = NDArray[np.float64]

N, LENGTH = 12, 1.3
ATOMS = np.arange(2, N)


class Trap(Potential):
    """U = strength x^2 / 2 + tilt y of some particles; the strength is positive."""

    energy_is_linear = True

    def __init__(self, strength: float, tilt: float, name: str = "trap") -> None:
        super().__init__(name=name)
        self.log_strength = nn.Parameter(torch.tensor(np.log(strength)))
        self.tilt = nn.Parameter(torch.tensor(tilt, dtype=torch.float64))

    def coefficients(self, temperature: float | None = None) -> Tensor:
        return torch.stack([self.log_strength.exp(), self.tilt])


@diffsim.adapts(Trap)
class TrapAdapter(diffsim.Adapter):
    """A CustomExternalForce with two global parameters."""

    def build(self, system: openmm.System, options: Any) -> openmm.Force:
        force = openmm.CustomExternalForce("0.5*strength*x^2+tilt*y")
        for name, value in self._values().items():
            force.addGlobalParameter(name, value)
        everyone = range(system.getNumParticles())
        for i in everyone if options.atoms is None else np.asarray(options.atoms):
            force.addParticle(int(i))
        return force

    @classmethod
    def own(cls, force: openmm.Force) -> Any:
        return force if isinstance(force, openmm.CustomExternalForce) else None

    def update(self, context: openmm.Context | None, temperature: Any) -> None:
        for k, (name, value) in enumerate(self._values().items()):
            self.force.setGlobalParameterDefaultValue(k, value)
            if context is not None:
                context.setParameter(name, value)

    def recorder(
        self, context: openmm.Context, particles: Any, trajectory: Any
    ) -> diffsim.FeatureRecorder:
        return TrapRecorder(np.flatnonzero(self.types() >= 0))

    def types(self) -> NDArray[np.int64]:
        types = np.full(self.n_particles, -1)
        particles = range(self.force.getNumParticles())
        types[[self.force.getParticleParameters(k)[0] for k in particles]] = 0
        return types

    def _values(self) -> dict[str, float]:
        strength, tilt = self.potential.coefficients().tolist()
        return {"strength": strength, "tilt": tilt}


class TrapRecorder(diffsim.FeatureRecorder):
    def __init__(self, atoms: NDArray[np.int64]) -> None:
        self.atoms = atoms
        super().__init__()

    def features(self, positions: Array, box: Array | None) -> tuple[Array, Array]:
        x, y = positions[self.atoms, 0], positions[self.atoms, 1]
        return np.array([0.5 * np.sum(x**2), y.sum()]), np.array([-np.sum(x**2), -y.sum()])


class Moments(diffsim.Observable):
    """<x^2> and <y> of the particles in the trap, nm^2 and nm."""

    n_values = 2
    histograms = ()

    def recorder(self, particles: Any) -> Any:
        return self

    def record(self, frame: Any, counts: Any) -> Array:
        x, y = frame.positions[ATOMS, 0], frame.positions[ATOMS, 1]
        return np.array([np.mean(x**2), y.mean()])

    def values(self, records: Tensor, conditions: Any) -> Tensor:
        return records


MOMENTS = Moments()
STRENGTH, TILT = 60.0, 5.0


def point_of(potential: Potential, backend: str | None = None) -> StatePoint:
    """Particles in the trap and in springs along y and z that are not learned."""
    system = empty_system(N, np.eye(3) * LENGTH, mass=4.0)
    springs = openmm.CustomExternalForce("40*y^2+80*z^2+10*x^2")
    springs.setName("springs")
    for i in range(N):
        springs.addParticle(i)
    system.addForce(springs)
    for term in potential if isinstance(potential, diffsim.Sum) else [potential]:
        options = {} if isinstance(term, Trap) else {"periodic": False, "backend": backend}
        term.attach(system, atoms=ATOMS, **options)
    positions = lattice(N, np.eye(3) * LENGTH, 0.02) - 0.5 * LENGTH
    simulation = simulate(system, positions, langevin())
    simulation.minimizeEnergy(maxIterations=50)
    return StatePoint(simulation, potential)


def test_it_runs_in_openmm() -> None:
    trap = Trap(STRENGTH, TILT)
    system = empty_system(N, np.eye(3) * LENGTH)
    force = trap.attach(system, atoms=ATOMS)
    assert force.getName() == "trap"
    with pytest.raises(AttachError, match="already has a force named 'trap'"):
        trap.attach(system)
    x = lattice(N, np.eye(3) * LENGTH, 0.05)
    context = context_of(system, x, "Reference")
    expected = 0.5 * STRENGTH * np.sum(x[ATOMS, 0] ** 2) + TILT * np.sum(x[ATOMS, 1])
    assert energy_and_forces(context)[0] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(AttachError, match="no force named 'another'"):
        StatePoint(simulate(system, x), Trap(1.0, 1.0, name="another"))


def test_new_parameters_reach_the_context_and_the_system() -> None:
    trap = Trap(STRENGTH, TILT)
    point = point_of(trap)
    set_flat_parameters(trap, torch.tensor([np.log(80.0), -2.0]))
    point.apply()
    parameters = dict(point.simulation.context.getParameters())
    assert parameters == pytest.approx({"strength": 80.0, "tilt": -2.0})
    portable = diffsim.portable_system(point.simulation.system)
    (learned,) = [f for f in portable.getForces() if f.getName() == "trap"]
    assert learned.getGlobalParameterDefaultValue(0) == pytest.approx(80.0)


def test_frames_are_its_features() -> None:
    trap = Trap(STRENGTH, TILT)
    point = point_of(trap)
    samples = point.sample(100, 10, [MOMENTS])
    assert isinstance(samples.learned, Features)
    assert samples.features.shape == (10, 2)
    last = point.simulation.context.getState(getEnergy=True).getPotentialEnergy()._value
    assert samples.run_energies()[-1] == pytest.approx(last, rel=1e-12)
    np.testing.assert_allclose(samples.features[:, 0], 5 * samples.records[MOMENTS][:, 0])
    assert np.ptp(samples.rest_energy) > 1


def two_runs(potential: Potential, observables: Any = (MOMENTS,)) -> Samples:
    """With different parameters, and present ones that differ from both."""
    point, parts = point_of(potential), []
    for _ in range(2):
        parts.append(point.sample(300, 10, observables, equilibration=50))
        set_flat_parameters(potential, 1.01 * flat_parameters(potential))
    return Samples.pool(parts)


def test_gradient_of_an_average_equals_finite_differences() -> None:
    trap = Trap(STRENGTH, TILT)
    samples = two_runs(trap)
    for row in torch.eye(2, dtype=torch.float64):
        assert_parameter_gradient(trap, lambda row=row: samples.average(MOMENTS) @ row)
    elsewhere = samples.reweight(115.0)
    assert_parameter_gradient(trap, lambda: elsewhere.average(MOMENTS).sum())


def test_averages_and_gradients_are_exact_within_their_errors() -> None:
    """<x^2> = kT / k and <y> = -tilt / 80 of independent oscillators, k = strength + 20."""
    trap = Trap(STRENGTH, TILT)
    samples = point_of(trap).sample(40_000, 20, [MOMENTS], equilibration=500)
    kt = 1 / beta(TEMPERATURE)
    for strength, tilt in ((STRENGTH, TILT), (0.97 * STRENGTH, 1.05 * TILT)):
        set_flat_parameters(trap, torch.tensor([np.log(strength), tilt]))
        estimate, k = samples.estimate(MOMENTS), strength + 20
        exact = np.array([kt / k, -tilt / 80])
        deviation = (estimate.value - exact) / estimate.standard_error
        assert np.abs(deviation).max() < 4, f"{deviation} standard errors"
        slopes = ((-kt * strength / k**2, 0.0), (0.0, -1 / 80))  # d / d(ln strength, tilt)
        for index, slope in enumerate(slopes):
            gradient, error = samples.gradient(lambda s, i=index: s.average(MOMENTS)[i])
            assert np.abs((gradient - slope) / error).max() < 4
            assert error[index] < 0.2 * abs(slope[index])


@pytest.mark.parametrize("other", ["pair", "network"])
def test_it_is_learned_together_with_others(other: str) -> None:
    trap = Trap(STRENGTH, TILT)
    whole = trap + (argon(0.6, 14) if other == "pair" else embedded())
    samples = two_runs(whole, [MOMENTS])
    assert (
        samples.learned.response("energy", whole.coefficients(), np.ones((1, 60))).all() is not None
    )
    assert list(whole.blocks)[:2] == ["trap.log_strength", "trap.tilt"]
    assert_parameter_gradient(whole, lambda: samples.average(MOMENTS).sum())


def test_samples_are_kept_in_files(tmp_path: Path) -> None:
    trap = Trap(STRENGTH, TILT)
    samples = two_runs(trap)
    samples.save(tmp_path / "trap.npz")
    again = Samples.load(tmp_path / "trap.npz", trap, [MOMENTS])
    np.testing.assert_array_equal(
        again.estimate(MOMENTS).covariance, samples.estimate(MOMENTS).covariance
    )
    with pytest.raises(StatePointError, match="its kind was Trap, got SplinePair"):
        Samples.load(tmp_path / "trap.npz", diffsim.SplinePair(0.3, 0.6, 6), [MOMENTS])


def test_a_worker_gives_what_sampling_here_does() -> None:
    trap = Trap(STRENGTH, TILT)
    point = point_of(trap)
    job = SamplingJob.of(point, Recording(60, 10, (MOMENTS,)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(job.run).result()
    here = point.sample(60, 10, [MOMENTS])
    for name, array in here.arrays([MOMENTS], Path()).items():
        np.testing.assert_array_equal(result.arrays[name], array)
    assert result.state == point.serialize()


def test_an_observable_with_other_numbers_of_values_than_it_says_is_refused() -> None:
    class More(Moments):
        n_values = 3

    trap = Trap(STRENGTH, TILT)
    target = diffsim.Target(point_of(trap), More(), np.ones(3), uncertainty=1.0)
    with pytest.raises(ObservableError, match=r"More: expected n_values = 3 .*, got 2"):
        diffsim.Refinement(trap, [target]).run(rounds=1, steps=100, every=10, progress=False)


def test_it_is_refined() -> None:
    """From a third of the strength and no tilt to averages that are exact."""
    trap = Trap(STRENGTH / 3, 0.0)
    kt = 1 / beta(TEMPERATURE)
    exact = np.array([kt / (STRENGTH + 20), -TILT / 80])
    target = diffsim.Target(point_of(trap), MOMENTS, exact, uncertainty=2e-4)
    diffsim.Refinement(trap, [target]).run(rounds=6, steps=8000, every=20, progress=False)
    strength, tilt = trap.coefficients().tolist()
    assert strength == pytest.approx(STRENGTH, rel=0.15)
    assert tilt == pytest.approx(TILT, rel=0.15)


# What is refused --------------------------------------------------------------------------------


class Unconnected(Potential):
    pass


def test_a_kind_without_an_adapter_is_told_what_to_do() -> None:
    with pytest.raises(AttachError, match=r"connects Unconnected with OpenMM.*@adapts"):
        Unconnected().attach(empty_system(1, np.eye(3)))


def test_segments_say_that_it_has_no_part() -> None:
    point = point_of(Trap(STRENGTH, TILT))
    with pytest.raises(SegmentError, match=r"Trap.*part\(\)"):
        point.segment(5)


def in_a_liquid(trap: Trap, pressure: float | None = None, side: float = 2.0) -> StatePoint:
    """Trapped particles of a fluid in a periodic box, where the trap is not periodic."""
    system = empty_system(64, np.eye(3) * side, mass=39.9)
    stock = openmm.NonbondedForce()
    stock.setNonbondedMethod(stock.CutoffPeriodic)
    stock.setCutoffDistance(0.8)
    for _ in range(64):
        stock.addParticle(0.0, 0.34, 1.0)
    system.addForce(stock)
    trap.attach(system, atoms=ATOMS)
    if pressure is not None:
        system.addForce(openmm.MonteCarloBarostat(pressure, TEMPERATURE, 5))
    return StatePoint(simulate(system, lattice(64, np.eye(3) * side, 0.02), langevin()), trap)


def test_observables_see_the_box_of_the_system() -> None:
    """As beside a periodic potential that is zero."""
    rdf, pressure = diffsim.RDF(0.9, 30), diffsim.Pressure()
    point = in_a_liquid(Trap(1.0, 0.0))
    found = point.sample(60, 10, [rdf, pressure])
    np.testing.assert_allclose(found.volume, 8.0)
    assert found.features.shape == (6, 2)
    assert "density in 1/nm^3" in point.identity()

    zero = diffsim.SplinePair(0.3, 0.8, 6, name="zero")
    zero.attach(point.simulation.system)
    point.simulation.context.reinitialize(preserveState=True)
    records = []
    for potential in (point.potential, zero):
        recorder = FrameRecorder(potential, point.simulation.context, [rdf])
        recorder.add(*configuration(point.snapshot()), 0.0)
        c = potential.coefficients().detach().numpy()
        records.append(recorder.samples(c, TEMPERATURE, None, 1).records[rdf])
    assert records[0].sum() > 0
    np.testing.assert_array_equal(*records)


def test_volumes_at_constant_pressure_are_those_of_the_system() -> None:
    samples = in_a_liquid(Trap(1.0, 0.0), pressure=10.0).sample(60, 10)
    assert np.all(np.isfinite(samples.volume)) and np.ptp(samples.volume) > 0
    assert samples.n_effective() == pytest.approx(6)


@pytest.mark.parametrize("method", ["build", "own", "update", "recorder"])
def test_an_adapter_that_lacks_a_method_is_told_which(method: str) -> None:
    class Half(Trap):
        pass

    given = {name: vars(TrapAdapter)[name] for name in ("build", "own", "update", "recorder")}
    rest = {name: vars(TrapAdapter)[name] for name in ("types", "_values")}
    del given[method]
    diffsim.adapts(Half)(type("HalfAdapter", (diffsim.Adapter,), {**given, **rest}))
    try:
        with pytest.raises(NotImplementedError, match=rf"HalfAdapter has no {method}\(\)"):
            point_of(Half(STRENGTH, TILT)).sample(10, 10)
    finally:
        del _ADAPTERS[Half]


def test_a_worker_is_not_sent_another_force() -> None:
    """An adapter that takes atoms and does not say which would have all of them trapped."""

    class Forgetful(Trap):
        pass

    @diffsim.adapts(Forgetful)
    class ForgetfulAdapter(TrapAdapter):
        types = diffsim.Adapter.types

    try:
        with pytest.raises(AttachError, match=r"'Particles': 10.*'Particles': 12"):
            SamplingJob.of(point_of(Forgetful(STRENGTH, TILT)), Recording(10, 10))
    finally:
        del _ADAPTERS[Forgetful]


def test_two_of_a_kind_do_not_share_a_global_parameter() -> None:
    first, second = Trap(STRENGTH, TILT, name="first"), Trap(STRENGTH, TILT, name="second")
    system = empty_system(N, np.eye(3) * LENGTH)
    first.attach(system, atoms=[0, 1])
    second.attach(system, atoms=[2, 3])
    simulation = simulate(system, lattice(N, np.eye(3) * LENGTH, 0.02), langevin())
    with pytest.raises(AttachError, match=r"share the global parameters \['strength', 'tilt'\]"):
        StatePoint(simulation, first + second)
