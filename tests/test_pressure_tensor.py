"""The pressure along each axis, and what it says of surfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from systems import (
    BOXES,
    EPSILON,
    SIGMA,
    TEMPERATURE,
    argon,
    assert_parameter_gradient,
    brute_force_pairs,
    empty_system,
    langevin,
    lattice,
    simulate,
)
from test_statepoint import Filming, lennard_jones_force, water
from test_system_parameters import bulk

import openmm_diffsim as diffsim
from openmm_diffsim import LennardJones, Pressure, PressureTensor, SurfaceTension
from openmm_diffsim.engine.recorder import RestForces, configuration
from openmm_diffsim.errors import ObservableError
from openmm_diffsim.units import BAR, MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

BOX = np.diag([1.6, 1.8, 2.1])


def fluid(potential: Any, box: Array = BOX, others: bool = False, n: int = 40) -> Any:
    """Argon in a box that is no cube, perhaps with another force besides."""
    system = empty_system(n, box)
    if others:
        system.addForce(lennard_jones_force(n, 0.7))
    potential.attach(system)
    return simulate(system, lattice(n, box, 0.03))


def values(samples: Any, observable: Any) -> Array:
    return np.asarray(samples.at().values(observable).detach())


def test_an_ideal_gas_has_the_pressure_of_the_gas_law_along_each_axis() -> None:
    potential = LennardJones(SIGMA, 0.0, 0.6, knots=10)
    tensor, tension = PressureTensor(), SurfaceTension()
    samples = diffsim.StatePoint(fluid(potential), potential).sample(20, 10, [tensor, tension])
    expected = 40 * MOLAR_GAS_CONSTANT * TEMPERATURE / np.prod(np.diag(BOX)) * BAR
    np.testing.assert_allclose(values(samples, tensor), np.full((2, 3), expected), rtol=1e-12)
    np.testing.assert_allclose(values(samples, tension), np.zeros((2, 1)), atol=1e-9)


def test_the_tensor_of_a_lennard_jones_fluid_is_that_of_its_pair_forces() -> None:
    potential, tensor = argon(), PressureTensor()
    simulation = fluid(potential)
    film = Filming(20)
    simulation.reporters.append(film)
    samples = diffsim.StatePoint(simulation, potential).sample(100, 20, [tensor])
    expected = []
    for positions, box in zip(film.positions, film.boxes, strict=True):
        d = np.array(list(brute_force_pairs(positions, box, 0.6).values()))
        r = np.linalg.norm(d, axis=1)
        along = (potential.force(r).detach().numpy()[0] / r) @ d**2
        kinetic = 40 * MOLAR_GAS_CONSTANT * TEMPERATURE
        expected.append(BAR * (kinetic + along) / np.prod(np.diag(box)))
    # A difference over 0.1 % of the box.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(values(samples, tensor), expected, atol=5e-4 * scale)


def nonbonded(box: Array, n: int = 40) -> tuple[Any, Any]:
    """The same of parameters that are in the System."""
    system = empty_system(n, box)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(0.6)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.5)
    for k in range(n):
        force.addParticle(0.0, SIGMA, EPSILON * (1.0 if k % 2 else 0.5))
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones({"A": np.arange(0, n, 2)})
    return simulate(system, lattice(n, box, 0.03)), potential


def systems() -> dict[str, Any]:
    def pair(box: Array = BOX, others: bool = False) -> tuple[Any, Any]:
        potential = argon()
        return fluid(potential, box, others), potential

    def a_sum() -> tuple[Any, Any]:
        both = argon() + LennardJones(SIGMA, 0.2, 0.5, knots=12, name="second")
        return fluid(both), both

    return {
        "pairs": pair,
        "another force": lambda: pair(others=True),
        "oblique": lambda: pair(BOXES["skewed"]),
        "sum": a_sum,
        "parameters of the System": lambda: nonbonded(BOX),
        "rigid water": lambda: water("tip4pew.xml"),
    }


@pytest.mark.parametrize("name", systems())
def test_its_trace_is_the_pressure(name: str) -> None:
    simulation, potential = systems()[name]()
    tensor, pressure = PressureTensor(), Pressure()
    samples = diffsim.StatePoint(simulation, potential).sample(40, 20, [tensor, pressure])
    along, whole = values(samples, tensor), values(samples, pressure)[:, 0]
    assert np.ptp(along, axis=1).min() > 1, "the axes are to differ"
    np.testing.assert_allclose(along.mean(axis=1), whole, atol=1e-3 * np.abs(along).max())
    # Also at other parameters than those sampled.
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.mul_(1.02)
    along, whole = values(samples, tensor), values(samples, pressure)[:, 0]
    np.testing.assert_allclose(along.mean(axis=1), whole, atol=2e-3 * np.abs(along).max())


@pytest.mark.parametrize("name", ["another force", "parameters of the System"])
@pytest.mark.parametrize("observable", [PressureTensor(), SurfaceTension("x", interfaces=1)])
def test_gradient_over_recorded_frames_equals_finite_differences(
    name: str, observable: Any
) -> None:
    simulation, potential = systems()[name]()
    samples = diffsim.StatePoint(simulation, potential).sample(200, 5, [observable])
    direction = torch.tensor([1.0, -0.4, 0.3][: observable.n_values], dtype=torch.float64)
    assert_parameter_gradient(potential, lambda: samples.average(observable) @ direction)


def test_a_homogeneous_fluid_has_no_surface_tension() -> None:
    potential, tension, tensor = argon(), SurfaceTension(), PressureTensor()
    simulation = fluid(potential)
    samples = diffsim.StatePoint(simulation, potential).sample(6000, 10, [tension, tensor], 500)
    found = samples.estimate(tension)
    assert abs(found.value[0]) < 4 * found.standard_error[0] < 10
    along = samples.estimate(tensor).value
    expected = 0.5 * 0.1 * 2.1 * (along[2] - along[:2].mean())
    assert found.value[0] == pytest.approx(expected, rel=1e-9)


def test_a_slab_has_a_surface_tension() -> None:
    """A liquid film of argon beside its vapour pulls itself together."""
    box = np.diag([1.7, 1.7, 5.0])
    x = lattice(90, np.diag([1.7, 1.7, 1.9]), 0.02)
    potential, tension = argon(cutoff=0.8), SurfaceTension()
    system = empty_system(90, box)
    potential.attach(system)
    simulation = simulate(system, x, langevin(80.0))
    samples = diffsim.StatePoint(simulation, potential).sample(3000, 15, [tension], 1000)
    found = samples.estimate(tension)
    assert found.value[0] > 4 * found.standard_error[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SurfaceTension("w"), "axis: expected one of"),
        (lambda: SurfaceTension(interfaces=0), "interfaces: expected a whole number >= 1"),
    ],
)
def test_arguments_are_checked(make: Any, words: str) -> None:
    with pytest.raises(ObservableError, match=words):
        make()


def test_a_surface_that_is_oblique_is_refused() -> None:
    potential = argon()
    point = diffsim.StatePoint(fluid(potential, BOXES["skewed"]), potential)
    assert point.sample(5, 5, [SurfaceTension("z")]).volume.size == 1
    with pytest.raises(ObservableError, match="the box is oblique to it"):
        point.sample(5, 5, [SurfaceTension("x")])


def test_a_network_is_refused() -> None:
    class Nothing(torch.nn.Module):
        def forward(self, positions: Any, box: Any) -> Any:
            return positions.sum() * 0.0

    potential = diffsim.NetworkPotential(Nothing())
    with pytest.raises(ObservableError, match="PressureTensor: expected a potential whose energy"):
        diffsim.StatePoint(fluid(potential), potential).sample(5, 5, [PressureTensor()])


@pytest.mark.parametrize(("smooth", "same"), [(True, True), (False, False)])
def test_noise_of_cutoffs_is_what_a_step_of_the_box_has(smooth: bool, same: bool) -> None:
    """Of energies that do not jump, steps of 0.3 % to 0.01 % give one pressure."""
    simulation, _ = bulk()
    force = next(f for f in simulation.system.getForces() if type(f) is openmm.NonbondedForce)
    if smooth:
        force.setEwaldErrorTolerance(1e-6)
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(0.35)
    simulation.context.reinitialize(preserveState=True)
    frame = configuration(simulation.context.getState(positions=True))
    rest = RestForces((), simulation.context)
    found = [rest.virial(*frame, step) for step in (3e-3, 1e-3, 1e-4)]
    assert (np.ptp(found) < 1e-3 * np.abs(found).max()) == same
