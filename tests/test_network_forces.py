"""Networks in OpenMM, called by Python: energies, forces, live parameters, files, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from networks import embedded, fluid
from numpy.typing import NDArray
from openmm import app
from systems import (
    TEMPERATURE,
    argon,
    context_of,
    empty_system,
    energy_and_forces,
    lattice,
    simulate,
)

import openmm_diffsim as diffsim
from openmm_diffsim import NetworkPotential, StatePoint, TorchMDNet, portable_system
from openmm_diffsim.engine.adapters import attached as bound
from openmm_diffsim.engine.adapters import (
    chosen_backend,
    other_forces,
    torchforce,
)
from openmm_diffsim.engine.adapters.computation import Computation
from openmm_diffsim.errors import AttachError
from openmm_diffsim.potentials import adapter_of, flat_parameters, set_flat_parameters

Array = NDArray[np.float64]

N = 40
ATOMS = np.array([i for i in range(N) if i % 8])
TYPES = ATOMS % 2
BOXES = {
    "cubic": np.eye(3) * 1.6,
    "triclinic": np.array([[1.7, 0.0, 0.0], [0.2, 1.65, 0.0], [-0.3, 0.1, 1.8]]),
    "none": None,
}
TOLERANCE = {"Reference": 1e-10, "CPU": 1e-5, "OpenCL": 1e-5}


@cache
def has_platform(name: str) -> bool:
    platforms = range(openmm.Platform.getNumPlatforms())
    if name not in [openmm.Platform.getPlatform(i).getName() for i in platforms]:
        return False
    try:
        context_of(empty_system(1, np.eye(3)), np.zeros((1, 3)), name)
    except openmm.OpenMMException:
        return False
    return True


@pytest.fixture(params=TOLERANCE)
def platform(request: pytest.FixtureRequest) -> str:
    if not has_platform(request.param):
        pytest.skip(f"OpenMM has no working platform {request.param} here")
    return request.param


def network(**options: Any) -> NetworkPotential:
    """Two types, weights as they may be after training."""
    net = TorchMDNet(0.6, 2, hidden=8, layers=1, rbf=6, seed=1, **options)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
    prior = argon(n_types=2).requires_grad_(False)
    return NetworkPotential(net, prior=prior, n_types=2, name="network")


def attached(
    potential: NetworkPotential, box: Array | None, **options: Any
) -> tuple[openmm.System, Array]:
    system = empty_system(N, np.eye(3) * 5 if box is None else box)
    where = {"atoms": ATOMS, "types": TYPES, "backend": "python", "periodic": box is not None}
    potential.attach(system, **(where | options))
    return system, lattice(N, np.eye(3) * 1.6 if box is None else box, 0.03)


def expected(potential: NetworkPotential, x: Array, box: Array | None) -> tuple[float, Array]:
    """From the model itself, in double precision."""
    positions = torch.from_numpy(x[ATOMS]).requires_grad_(True)
    cell = None if box is None else torch.from_numpy(box)
    energy = potential.energy(positions, cell, torch.from_numpy(TYPES))
    (slope,) = torch.autograd.grad(energy, positions)
    forces = np.zeros(x.shape)
    forces[ATOMS] = -slope.numpy()
    return energy.item(), forces


def assert_agree(found: tuple[float, Array], wanted: tuple[float, Array], tolerance: float) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=tolerance)
    assert np.abs(found[1] - wanted[1]).max() < tolerance * np.abs(wanted[1]).max()


@pytest.mark.parametrize("shape", BOXES)
def test_energy_and_forces_are_those_of_the_model(shape: str, platform: str) -> None:
    potential = network()
    system, x = attached(potential, BOXES[shape])
    context = context_of(system, x, platform)
    bound(potential, system).update(context, TEMPERATURE)
    wanted = expected(potential, x, BOXES[shape])
    assert_agree(energy_and_forces(context), wanted, TOLERANCE[platform])
    types = bound(potential, system).types()
    np.testing.assert_array_equal(types[ATOMS], TYPES)
    assert (types[::8] == -1).all()


@pytest.mark.parametrize(("precision", "tolerance"), [("single", 1e-5), ("double", 1e-10)])
def test_precision_can_be_asked_for(precision: str, tolerance: float) -> None:
    potential = network()
    system, x = attached(potential, BOXES["cubic"], precision=precision)
    context = context_of(system, x, "Reference")
    bound(potential, system).update(context, TEMPERATURE)
    energy, forces = energy_and_forces(context)
    wanted = expected(potential, x, BOXES["cubic"])
    assert_agree((energy, forces), wanted, tolerance)
    assert (precision == "double") == (abs(energy / wanted[0] - 1) < 1e-12)


def test_new_parameters_reach_a_live_context_and_its_integrator(platform: str) -> None:
    """The second step's first kick is by forces that the integrator may have kept."""
    potential = network()
    system, x = attached(potential, BOXES["cubic"])
    adapter = bound(potential, system)
    context = context_of(system, x, platform)
    adapter.update(context, TEMPERATURE)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    context.getIntegrator().step(3)
    set_flat_parameters(potential, 1.2 * flat_parameters(potential))
    adapter.update(context, TEMPERATURE)
    state = context.getState(positions=True, velocities=True)
    fresh_system, _ = attached(potential, BOXES["cubic"])
    fresh = context_of(fresh_system, x, platform)
    bound(potential, fresh_system).update(fresh, TEMPERATURE)
    fresh.setPositions(state.getPositions(asNumpy=True))
    fresh.setVelocities(state.getVelocities(asNumpy=True))
    for one in (context, fresh):
        one.getIntegrator().step(2)
    positions = [
        one.getState(positions=True).getPositions(asNumpy=True)._value for one in (context, fresh)
    ]
    np.testing.assert_allclose(*positions, rtol=0, atol=1e-6)
    moved = np.asarray(positions[0])
    assert_agree(
        energy_and_forces(context),
        expected(potential, moved, BOXES["cubic"]),
        10 * TOLERANCE[platform],
    )


def test_a_barostat_changes_the_box_that_the_network_sees() -> None:
    potential = network()
    system, x = attached(potential, BOXES["cubic"])
    barostat = openmm.MonteCarloBarostat(3000.0, TEMPERATURE, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    context = context_of(system, x, "Reference")
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    context.getIntegrator().step(60)
    state = context.getState(positions=True, energy=True)
    box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)
    assert abs(box[0, 0] - 1.6) > 0.01
    positions = np.array(state.getPositions(asNumpy=True)._value)
    assert_agree(energy_and_forces(context), expected(potential, positions, box), 1e-10)


def test_force_groups_and_contexts_of_one_system() -> None:
    potential = network()
    system, x = attached(potential, BOXES["cubic"])
    bound(potential, system).force.setForceGroup(7)
    one, other = (context_of(system, x, "Reference") for _ in range(2))
    whole = one.getState(energy=True).getPotentialEnergy()
    assert one.getState(energy=True, groups={7}).getPotentialEnergy() == whole
    assert one.getState(energy=True, groups={0}).getPotentialEnergy()._value == 0
    assert other.getState(energy=True).getPotentialEnergy() == whole
    assert other_forces(system, {potential.name}).getNumForces() == 0


def test_energy_is_conserved() -> None:
    """Over 2 ps it drifts by less than a thousandth of kT per particle."""
    potential = network()
    system, x = attached(potential, BOXES["cubic"], atoms=None, types=np.arange(N) % 2)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.002), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(x)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    context.getIntegrator().step(500)

    def total() -> float:
        state = context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy())._value

    energies = []
    for _ in range(50):
        context.getIntegrator().step(20)
        energies.append(total())
    drift = np.mean(energies[25:]) - np.mean(energies[:25])
    thermal = 8.314e-3 * TEMPERATURE
    assert abs(drift) / N < 1e-3 * thermal
    kinetic = context.getState(energy=True).getKineticEnergy()._value
    assert kinetic > 0.5 * N * thermal


# Files --------------------------------------------------------------------------------------------


def test_a_checkpoint_goes_on_to_the_last_bit() -> None:
    potential = embedded()
    system = empty_system(27, np.eye(3) * 1.3)
    potential.attach(system, backend="python")
    x = lattice(27, np.eye(3) * 1.3, 0.02)
    context = context_of(system, x, "Reference")
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    context.getIntegrator().step(20)
    checkpoint = context.createCheckpoint()
    found = []
    for _ in range(2):
        context.loadCheckpoint(checkpoint)
        context.getIntegrator().step(20)
        found.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    np.testing.assert_array_equal(*found)


def test_a_copy_in_this_process_has_the_present_parameters() -> None:
    potential = network()
    system, x = attached(potential, BOXES["cubic"])
    set_flat_parameters(potential, 1.1 * flat_parameters(potential))
    bound(potential, system).update(None, TEMPERATURE)
    copy = openmm.XmlSerializer.clone(system)
    wanted = expected(potential, x, BOXES["cubic"])
    assert_agree(energy_and_forces(context_of(copy, x, "Reference")), wanted, 1e-10)
    assert adapter_of(potential).bind(copy)


ELSEWHERE = """
import sys
import numpy as np
import openmm
import openmm_diffsim
system = openmm.XmlSerializer.deserialize(open(sys.argv[1]).read())
context = openmm.Context(
    system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
)
context.setPositions(np.load(sys.argv[2]))
try:
    print(repr(context.getState(energy=True).getPotentialEnergy()._value))
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["portable", "plain"])
def test_another_process_gets_the_present_parameters_or_is_refused(
    kind: str, tmp_path: Path
) -> None:
    potential = network()
    system, x = attached(potential, BOXES["cubic"])
    set_flat_parameters(potential, 1.1 * flat_parameters(potential))
    bound(potential, system).update(None, TEMPERATURE)
    written = portable_system(system) if kind == "portable" else system
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(written))
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / "system.xml"), str(tmp_path / "x.npy")]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *files], capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()[-1]
    if kind == "plain":
        assert "portable_system(system)" in said
    else:
        assert float(said) == pytest.approx(expected(potential, x, BOXES["cubic"])[0], rel=1e-10)


WRITER = """
import sys, numpy as np, openmm, torch
sys.path.insert(0, sys.argv[2])
from own_springs import Springs
import openmm_diffsim as diffsim
system = openmm.System()
for _ in range(3):
    system.addParticle(1.0)
class Here(Springs):
    pass
diffsim.NetworkPotential(Here(), name="here").attach(system, periodic=False, backend="python")
try:
    diffsim.portable_system(system)
except diffsim.errors.AttachError as error:
    print(error)
system.removeForce(0)
diffsim.NetworkPotential(Springs()).attach(system, periodic=False, backend="python")
text = openmm.XmlSerializer.serialize(diffsim.portable_system(system))
open(sys.argv[1], "w").write(text)
"""

OWN_SPRINGS = """
import torch
class Springs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    def forward(self, positions, box):
        return 0.5 * self.k * (positions[1:] - positions[:-1]).square().sum()
"""


def test_a_class_that_cannot_be_imported_is_an_error_and_no_end_of_the_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/own_springs.py").write_text(OWN_SPRINGS)
    np.save(tmp_path / "x.npy", np.diag([0.0, 1.0, 2.0]))
    system, modules = str(tmp_path / "system.xml"), str(tmp_path / "modules")

    def run(script: str, *more: str, path: str = "") -> str:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([path, *sys.path])}
        command = [sys.executable, "-c", script, system, *more]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert "Here, which only this process knows, from __main__" in run(WRITER, modules)
    said = run(ELSEWHERE, str(tmp_path / "x.npy"))
    assert "cannot be read: ModuleNotFoundError" in said and "own_springs" in said
    energy = float(run(ELSEWHERE, str(tmp_path / "x.npy"), path=modules))
    assert energy == pytest.approx(0.5 * 3.0 * (1 + 5))


# Particles in one place ---------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_two_particles_in_one_place_are_the_same_to_all_and_finite(platform: str) -> None:
    pair, box = argon(0.6), np.eye(3) * 2.0
    x = lattice(8, box, 0.02)
    x[1] = x[0]
    expected = float(pair.energy(0.0)[0, 0].detach())
    found = {}
    for name, potential, options in (
        ("native", pair, {"backend": "native"}),
        ("network", pair.as_network(), {"backend": "python"}),
    ):
        system = empty_system(8, box)
        potential.attach(system, **options)
        simulation = simulate(system, x, platform=platform)
        energy, force = energy_and_forces(simulation.context)
        segment = StatePoint(simulation, potential).segment(3, x, np.zeros((8, 3)))
        (gradient,) = torch.autograd.grad(
            segment.positions[-1].square().sum(), [next(iter(pair.parameters()))]
        )
        assert energy > 0.9 * expected > 100
        found[name] = [energy, force, segment.positions[-1].detach(), gradient]
    for native, network in zip(found["native"], found["network"], strict=True):
        np.testing.assert_allclose(native, network, rtol=1e-5, atol=1e-5)
    x[1, 0] += 1e-7  # and not only there: the straight line below r_min
    np.testing.assert_allclose(
        pair.as_network().energy(torch.from_numpy(x), torch.from_numpy(box)).detach(),
        found["native"][0],
        rtol=1e-5,
    )


# Choice and refusals ------------------------------------------------------------------------------


def test_auto_chooses_what_works_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    potential, system = embedded(), empty_system(5, np.eye(3))
    with caplog.at_level("INFO"):
        force = potential.attach(system)
    assert chosen_backend(force) in ("python", "torchforce")
    assert f"backend='{chosen_backend(force)}'" in caplog.text


def test_torchforce_is_refused_where_torch_does_not_fit() -> None:
    reason = torchforce.why_not()
    if reason is None:
        pytest.skip("TorchForce works here")
    with pytest.raises(AttachError, match=r"backend='torchforce': .*pip install") as caught:
        embedded().attach(empty_system(5, np.eye(3)), backend="torchforce")
    assert reason in str(caught.value)


@pytest.mark.parametrize("version", ["1.5", "1.5.1"])
def test_a_pairing_that_cannot_work_is_named(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if torchforce.why_not() is None:
        pytest.skip("TorchForce works here")
    monkeypatch.setattr(torchforce.metadata, "version", lambda name: version)
    torchforce.why_not.cache_clear()
    try:
        said = torchforce.why_not()
    finally:
        monkeypatch.undo()
        torchforce.why_not.cache_clear()
    assert said is not None
    assert f"openmmtorch {version} needs a CUDA build of torch 2.9" in said
    assert torch.__version__ in said


def test_bad_arguments_are_refused() -> None:
    potential, box = embedded(), np.eye(3)
    with pytest.raises(AttachError, match="a network sees all its neighbours"):
        potential.attach(empty_system(5, box), exclusions=[(0, 1)])
    with pytest.raises(AttachError, match="backend: expected one of 'torchforce'"):
        potential.attach(empty_system(5, box), backend="native")
    with pytest.raises(AttachError, match="precision: expected 'single' or 'double'"):
        potential.attach(empty_system(5, box), precision="mixed")
    with pytest.raises(AttachError, match=r"as_network\(\).attach"):
        argon().attach(empty_system(5, box), backend="python")
    with pytest.raises(AttachError, match="only a network runs in a precision"):
        argon().attach(empty_system(5, box), precision="single")
    system = empty_system(5, box)
    potential.attach(system, backend="python")
    with pytest.raises(AttachError, match="already has a force named"):
        potential.attach(system, backend="python")
    with torch.no_grad():
        potential.network.w[0, 0] = float("nan")
    with pytest.raises(AttachError, match="are not finite"):
        bound(potential, system).update(None, TEMPERATURE)


def test_a_context_made_before_attach_is_refused() -> None:
    potential = embedded()
    system = empty_system(27, np.eye(3) * 1.3)
    context = context_of(system, lattice(27, np.eye(3) * 1.3), "Reference")
    potential.attach(system, backend="python")
    with pytest.raises(AttachError, match="made before attach"):
        bound(potential, system).update(context, TEMPERATURE)


def test_a_network_that_attach_did_not_add_is_not_found() -> None:
    system = empty_system(3, np.eye(3))
    force = openmm.PythonForce(_nothing, {})
    force.setName("network")
    system.addForce(force)
    assert not adapter_of(network()).bind(system)
    topology, integrator = app.Topology(), openmm.LangevinIntegrator(300, 1, 0.001)
    chain = topology.addChain()
    for _ in range(3):
        topology.addAtom("Ar", app.Element.getBySymbol("Ar"), topology.addResidue("A", chain))
    simulation = app.Simulation(
        topology, system, integrator, openmm.Platform.getPlatform("Reference")
    )
    with pytest.raises(AttachError, match="has no force named 'network'"):
        StatePoint(simulation, network())


def _nothing(state: openmm.State) -> tuple[float, Array]:
    return 0.0, np.zeros((3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_python_torch_force_calls(dtype: torch.dtype) -> None:
    """As openmm-torch documents it: (State, Tensor) gives a scalar Tensor and a Tensor of forces.

    The class itself is not on PyPI yet.
    """
    potential = network()
    system, x = attached(potential, BOXES["triclinic"])
    state = context_of(system, x, "Reference").getState(positions=True)
    types = bound(potential, system).types()
    computation = Computation(potential, types, True, None)
    energy, forces = computation(state, torch.from_numpy(x[ATOMS]).to(dtype))
    assert energy.dtype == forces.dtype == dtype and energy.shape == ()
    wanted = expected(potential, x, BOXES["triclinic"])
    tolerance = 1e-10 if dtype is torch.float64 else 1e-5
    everything = np.zeros(x.shape)
    everything[ATOMS] = forces.double().numpy()
    assert_agree((float(energy), everything), wanted, tolerance)
    if torchforce.why_not() is not None or not hasattr(torchforce.library(), "PythonTorchForce"):
        with pytest.raises(AttachError, match="openmmtorch"):
            potential.attach(empty_system(N, np.eye(3)), types=[0] * N, backend="pythontorchforce")


def test_the_same_structure_by_a_table_and_by_a_network() -> None:
    """A pair potential natively, or evaluated in torch and called by Python: within 4 errors."""
    pair, rdf = argon(), diffsim.RDF(0.6, 12)
    found = []
    for potential, seed in ((pair, 1), (pair.as_network(), 2)):
        point = fluid(potential, seed=seed)
        samples = point.sample(6000, 15, [rdf], equilibration=300)
        found.append(samples.estimate(rdf))
    seen = (found[0].value > 0.05) & (found[1].value > 0.05)
    error = np.hypot(found[0].standard_error, found[1].standard_error)[seen]
    deviation = (found[0].value - found[1].value)[seen] / error
    assert np.abs(deviation).max() < 4, f"{deviation} standard errors"
    assert np.median(found[0].standard_error[seen] / found[0].value[seen]) < 0.1
