"""The hidden liquid is what it is said to be, in each of its forms."""

from __future__ import annotations

import numpy as np
import pytest
import three_body
import torch
from systems import assert_parameter_gradient, context_of, energy_and_forces, numerical_derivative
from three_body import CUTOFF, StillingerWeber, custom_forces, python_force, reference_energy

N = 64
LENGTH = (N / three_body.DENSITY) ** (1 / 3)
SKEWED = LENGTH * np.array([[1, 0, 0], [0.4, 1, 0], [-0.3, 0.45, 1.0]])


def crowd(box: np.ndarray | None) -> np.ndarray:
    """A distorted lattice of N particles, some of them outside the box."""
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    cell = np.eye(3) * LENGTH if box is None else box
    x = (grid + 0.5) / 4 @ cell + rng.normal(0, 0.02, (N, 3))
    return x if box is None else x + rng.integers(-1, 2, (N, 3)) @ box


@pytest.mark.parametrize("box", [None, np.eye(3) * LENGTH, SKEWED], ids=["none", "cube", "skewed"])
@pytest.mark.parametrize("scripted", [False, True])
def test_the_module_gives_the_sum_over_pairs_and_triplets(
    box: np.ndarray | None, scripted: bool
) -> None:
    module = torch.jit.script(StillingerWeber()) if scripted else StillingerWeber()
    x = crowd(box)
    energy = module(torch.from_numpy(x), None if box is None else torch.from_numpy(box))
    assert energy.item() == pytest.approx(reference_energy(x, box), rel=1e-12)


def test_its_forces_and_parameter_gradients_are_derivatives() -> None:
    module, box = StillingerWeber(), torch.from_numpy(SKEWED)
    x = torch.from_numpy(crowd(SKEWED)).requires_grad_()
    (slope,) = torch.autograd.grad(module(x, box), x)

    def energy(first: np.ndarray) -> float:
        moved = x.detach().clone()
        moved[0] = torch.from_numpy(first)
        return float(module(moved, box).detach())

    expected = numerical_derivative(energy, x[0].detach().numpy())
    np.testing.assert_allclose(slope[0], expected, rtol=1e-6, atol=1e-6)
    assert_parameter_gradient(module, lambda: module(x, box))


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_openmms_own_forces_agree(platform: str) -> None:
    _, system, x = three_body.system(N)
    box = np.eye(3) * LENGTH
    for force in custom_forces(N):
        system.addForce(force)
    energy, forces = energy_and_forces(context_of(system, x, platform))
    _, other, _ = three_body.system(N)
    other.addForce(python_force(StillingerWeber()))
    same_energy, same_forces = energy_and_forces(context_of(other, x, "Reference"))
    assert same_energy == pytest.approx(reference_energy(x, box), rel=1e-12)
    rtol = 1e-10 if platform == "Reference" else 1e-5  # the CPU platform is in single precision
    assert energy == pytest.approx(same_energy, rel=rtol)
    atol = rtol * np.abs(same_forces).max()
    np.testing.assert_allclose(forces, same_forces, rtol=0, atol=atol)


def test_a_dimer_and_a_trimer_by_hand() -> None:
    """Two particles feel the pair term; a third one, at the tetrahedral angle, only that again."""
    r = 0.28
    pair = three_body.A * three_body.EPSILON * (three_body.B * (three_body.SIGMA / r) ** 4 - 1)
    pair *= np.exp(three_body.SIGMA / (r - CUTOFF))
    tetrahedral = r * np.array([-1 / 3, 8**0.5 / 3, 0])
    dimer = torch.tensor([[0.0, 0, 0], [r, 0, 0]], dtype=torch.float64)
    trimer = torch.cat([dimer, torch.from_numpy(tetrahedral)[None]])
    assert float(torch.linalg.norm(trimer[1] - trimer[2])) > CUTOFF
    module = StillingerWeber().requires_grad_(False)
    assert float(module(dimer)) == pytest.approx(pair, rel=1e-12)
    assert float(module(trimer)) == pytest.approx(2 * pair, rel=1e-12)


def test_the_liquid_has_the_energy_that_was_published() -> None:
    topology, system, x = three_body.system(216)
    system.addForce(python_force(StillingerWeber()))
    simulation = three_body.simulate(topology, system, x, seed=5)
    simulation.step(1500)
    energies = []
    for _ in range(40):
        simulation.step(50)
        state = simulation.context.getState(getEnergy=True)
        energies.append(state.getPotentialEnergy()._value / 216)
    # Of one frame the standard deviation is 0.26 kJ/mol, and four frames are worth one.
    assert np.mean(energies) == pytest.approx(three_body.ENERGY, abs=4 * 0.26 / 10**0.5)
