"""Networks through openmm-torch's TorchForce, in the environment that it needs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from networks import embedded, fluid
from systems import TEMPERATURE, context_of, energy_and_forces
from test_network_forces import ATOMS, BOXES, TYPES, N, assert_agree, attached, expected, network
from torch import Tensor, nn

import openmm_diffsim as diffsim
from openmm_diffsim import NetworkPotential, portable_system
from openmm_diffsim.engine.adapters import attached as bound
from openmm_diffsim.engine.adapters import (
    chosen_backend,
    other_forces,
    torchforce,
)
from openmm_diffsim.errors import AttachError
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters

REASON = torchforce.why_not()
REQUIRED = os.environ.get("OPENMM_DIFFSIM_REQUIRE_TORCHFORCE", "0") != "0"

pytestmark = pytest.mark.skipif(
    REASON is not None and not REQUIRED, reason=f"backend='torchforce': {REASON}"
)


def torch_attached(potential: NetworkPotential, shape: str, **options: Any) -> Any:
    return attached(potential, BOXES[shape], backend="torchforce", **options)


def test_it_is_here() -> None:
    assert REASON is None


@pytest.mark.parametrize(("platform", "tolerance"), [("Reference", 1e-10), ("CPU", 1e-5)])
@pytest.mark.parametrize("shape", BOXES)
def test_all_backends_agree(shape: str, platform: str, tolerance: float) -> None:
    potential = network()
    wanted = None
    for backend in ("torchforce", "python"):
        system, x = attached(potential, BOXES[shape], backend=backend)
        assert chosen_backend(bound(potential, system).force) == backend
        context = context_of(system, x, platform)
        bound(potential, system).update(context, TEMPERATURE)
        found = energy_and_forces(context)
        wanted = wanted or expected(potential, x, BOXES[shape])
        assert_agree(found, wanted, tolerance)
        types = bound(potential, system).types()
        np.testing.assert_array_equal(types[ATOMS], TYPES)
        assert (types >= 0).sum() == len(ATOMS)


def test_a_live_context_gets_new_parameters_and_keeps_its_state() -> None:
    potential = network()
    system, x = torch_attached(potential, "cubic")
    adapter = bound(potential, system)
    adapter.force.setForceGroup(3)
    context = context_of(system, x, "Reference")
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    context.getIntegrator().step(3)
    before = context.getState(positions=True, velocities=True)
    set_flat_parameters(potential, 1.2 * flat_parameters(potential))
    adapter.update(context, TEMPERATURE)
    after = context.getState(positions=True, velocities=True)
    for name in ("getPositions", "getVelocities"):
        pair = [np.array(getattr(s, name)(asNumpy=True)._value) for s in (before, after)]
        np.testing.assert_array_equal(*pair)
    moved = np.array(after.getPositions(asNumpy=True)._value)
    assert_agree(energy_and_forces(context), expected(potential, moved, BOXES["cubic"]), 1e-10)
    assert adapter.force.getForceGroup() == 3 and system.getNumForces() == 1


def test_a_barostat_changes_the_box_that_the_network_sees() -> None:
    potential = network()
    system, x = torch_attached(potential, "cubic")
    barostat = openmm.MonteCarloBarostat(3000.0, TEMPERATURE, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    context = context_of(system, x, "Reference")
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    context.getIntegrator().step(60)
    state = context.getState(positions=True)
    box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)
    assert abs(box[0, 0] - 1.6) > 0.01
    positions = np.array(state.getPositions(asNumpy=True)._value)
    assert_agree(energy_and_forces(context), expected(potential, positions, box), 1e-10)


def test_energy_is_conserved() -> None:
    """Over 1 ps it drifts by less than a thousandth of kT per particle."""
    potential = network()
    system, x = torch_attached(potential, "cubic", atoms=None, types=np.arange(N) % 2)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.002), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(x)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    context.getIntegrator().step(300)
    energies = []
    for _ in range(50):
        context.getIntegrator().step(10)
        state = context.getState(energy=True)
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    drift = np.mean(energies[25:]) - np.mean(energies[:25])
    assert abs(drift) / N < 1e-3 * 8.314e-3 * TEMPERATURE


def test_the_same_structure_as_by_python() -> None:
    """Independent runs: within 4 standard errors."""
    rdf, found = diffsim.RDF(0.6, 12), []
    for backend, seed in (("torchforce", 1), ("python", 2)):
        point = fluid(embedded(), seed=seed, backend=backend)
        found.append(point.sample(4000, 10, [rdf], equilibration=300).estimate(rdf))
    seen = (found[0].value > 0.05) & (found[1].value > 0.05)
    error = np.hypot(found[0].standard_error, found[1].standard_error)[seen]
    deviation = (found[0].value - found[1].value)[seen] / error
    assert np.abs(deviation).max() < 4, f"{deviation} standard errors"
    assert np.median(found[0].standard_error[seen] / found[0].value[seen]) < 0.1


def test_a_network_is_refined() -> None:
    """To the g(r) of another network, which is far off at the start."""
    rdf, other = diffsim.RDF(0.6, 24), embedded(1.0, seed=8)
    with torch.no_grad():
        other.network.v.mul_(3)
    wanted = fluid(other, seed=5).sample(3000, 10, [rdf], equilibration=500).estimate(rdf)
    point = fluid(embedded(), seed=6, backend="torchforce")
    error = np.maximum(wanted.standard_error, 0.01)
    target = diffsim.Target(point, rdf, rdf.r, wanted.value, uncertainty=error)
    fit = diffsim.Refinement(point.potential, [target])
    fit.run(4, 3000, 10, progress=False)
    misfits = [entry.misfit for entry in fit.history]
    assert misfits[0] > 1.5
    assert misfits[-1] < 0.7 * misfits[0], misfits
    rms = [entry.rdf_rms for entry in fit.history]  # ends at 0.20 to 0.35 of the first, 5 seeds
    assert rms[0] > 0.1
    assert rms[-1] < 0.6 * rms[0], rms
    assert chosen_backend(point.attached.force) == "torchforce"


def test_auto_takes_what_works() -> None:
    system = openmm.System()
    for _ in range(3):
        system.addParticle(1.0)
    assert chosen_backend(embedded().attach(system)) == "torchforce"
    potential = NetworkPotential(_NotScriptable(), name="another")
    assert chosen_backend(potential.attach(system)) == "python"


class _NotScriptable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, positions: Tensor, box: Tensor | None) -> Tensor:
        return self.k * np.sqrt(2.0) * positions.square().sum()


def test_what_does_not_go_is_refused() -> None:
    potential = network()
    system, _ = torch_attached(potential, "cubic")
    with pytest.raises(AttachError, match="cannot be kept in a file"):
        portable_system(system)
    assert other_forces(system, {potential.name}).getNumForces() == 0
    with pytest.raises(AttachError, match="only together with its Context"):
        bound(potential, system).update(None, TEMPERATURE)
    with pytest.raises(AttachError, match=r"torch.jit.script cannot compile.*backend='python'"):
        NetworkPotential(_NotScriptable()).attach(system, backend="torchforce")
    with pytest.raises(AttachError, match="has no PythonTorchForce"):
        embedded().attach(system, backend="pythontorchforce")
