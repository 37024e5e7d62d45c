"""computeSegmentGradient: the discrete adjoint of a whole stored segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import openmm
import pytest
import torch
from native_systems import REFERENCE, Case, Live, Where, context_on, live, mixture, why_missing
from systems import Array, numerical_derivative
from torch import Tensor

from openmm_diffsim import native
from openmm_diffsim.potentials import pair_index

pytestmark = pytest.mark.skipif(
    why_missing(REFERENCE) is not None, reason=str(why_missing(REFERENCE))
)

DT = 0.004  # ps
SPLITTINGS = {  # kick1, drift1, scale, drift2, kick2
    "leapfrog Verlet": (DT, DT, 1.0, 0.0, 0.0),
    "velocity Verlet": (DT / 2, DT, 1.0, 0.0, DT / 2),
    "LangevinMiddle": (DT, DT / 2, float(np.exp(-5 * DT)), DT / 2, 0.0),
}

Force = Callable[[Tensor, Tensor], Tensor]  # of positions and coefficients


class Start(NamedTuple):
    """A small fluid and all that fixes a segment of it."""

    case: Case
    velocities: Array  # [particles, 3], nm/ps
    noise: Array  # [steps, particles, 3]
    weights: Array  # what the loss weighs positions and velocities with, [2, steps+1, particles, 3]


def start(n_steps: int, splitting: str) -> Start:
    """Nine particles of three species, one of them with no mass, in a triclinic box."""
    box = np.array([[1.3, 0, 0], [0.4, 1.35, 0], [-0.5, 0.3, 1.4]])
    c = mixture(box, 9, 0.6, seed=4)
    masses = np.linspace(1.0, 4.0, 9)
    masses[4] = 0.0
    rng = np.random.default_rng(n_steps)
    core = 40 * np.exp(-np.arange(c.basis.n_coefficients))  # so that no pair meets at r = 0
    fluid = Case(
        c.positions, c.box, core + 0.5 * c.coefficients, np.array([0, 1, 2] * 3), c.basis,
        [(0, 1), (2, 7)], (), masses,
    )  # fmt: skip
    velocities = rng.normal(size=(9, 3)) * (masses > 0)[:, None]
    noise = rng.normal(size=(n_steps, 9, 3)) * (splitting == "LangevinMiddle") * 0.1
    noise *= (masses > 0)[:, None]
    return Start(fluid, velocities, noise, rng.uniform(0.5, 1.5, (2, n_steps + 1, 9, 3)))


def integrate(
    s: Start, splitting: str, force: Force, x: Tensor, v: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions and velocities [steps + 1, particles, 3], as the docstring of a step says."""
    kick1, drift1, scale, drift2, kick2 = SPLITTINGS[splitting]
    inverse = torch.from_numpy(
        np.divide(1.0, s.case.masses, out=np.zeros(9), where=s.case.masses > 0)
    )[:, None]
    moves = (inverse > 0).to(x.dtype)
    xs, vs = [x], [v]
    for noise in torch.from_numpy(s.noise):
        v1 = v + kick1 * inverse * force(x, c)
        v2 = moves * (scale * v1 + noise) + (1 - moves) * v
        x = x + moves * (drift1 * v1 + drift2 * v2)
        v = v2 + kick2 * inverse * force(x, c)
        xs.append(x)
        vs.append(v)
    return torch.stack(xs), torch.stack(vs)


def loss(s: Start, x: Tensor, v: Tensor) -> Tensor:
    """Something not linear in positions and velocities of all times."""
    a, b = torch.from_numpy(s.weights)
    return torch.sum(a * torch.sin(x)) + torch.sum(b * v**2)


def numpy_force(s: Start) -> Force:
    """From the pairs by brute force and the core's own spline; it carries no graph."""

    def force(x: Tensor, c: Tensor) -> Tensor:
        at_x = replace(s.case, positions=x.numpy(), coefficients=c.numpy())
        return torch.from_numpy(at_x.spline_forces())

    return force


def torch_force(s: Start) -> Force:
    """The same, differentiable: for each pair, u'(r) from the four coefficients around it."""
    i, j = np.triu_indices(9, 1)
    included = [pair not in s.case.exclusions for pair in zip(i, j, strict=True)]
    i, j = i[included], j[included]
    kind = torch.from_numpy(pair_index(3)[s.case.types[i], s.case.types[j]])
    b, box = s.case.basis, torch.from_numpy(s.case.box)

    def force(x: Tensor, c: Tensor) -> Tensor:
        delta = x[i] - x[j]
        for axis in (2, 1, 0):
            shift = torch.floor(delta[:, axis].detach() / box[axis, axis] + 0.5)
            delta = delta - shift[:, None] * box[axis]
        r = torch.linalg.norm(delta, dim=1)
        knot = (r - b.r_min) / b.spacing
        cell = knot.detach().long().clamp(0, b.knots - 2)
        t = knot - cell
        padded = torch.cat([2 * c[:, :1] - c[:, 1:2], c, torch.zeros(len(c), 3)], dim=1)
        weights = (-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2)
        slope = sum(w / 2 * padded[kind, cell + m] for m, w in enumerate(weights))
        slope = torch.where(knot < 0, c[kind, 1] - c[kind, 0], slope) / b.spacing
        pull = (torch.where(r < b.cutoff, -slope, 0.0) / r)[:, None] * delta
        return (
            torch.zeros_like(x)
            .index_add(0, torch.from_numpy(i), pull)
            .index_add(0, torch.from_numpy(j), -pull)
        )

    return force


def tensors(s: Start) -> tuple[Tensor, Tensor, Tensor]:
    arrays = (s.case.positions, s.velocities, s.case.coefficients)
    x, v, c = (torch.tensor(a, dtype=torch.float64) for a in arrays)
    return x, v, c


def native_gradient(s: Start, splitting: str, at: Live) -> native.SegmentGradient:
    """The gradient of the loss, by one native call over positions that NumPy integrated."""
    xs, vs = integrate(s, splitting, numpy_force(s), *tensors(s))
    xs.requires_grad_(True)
    vs.requires_grad_(True)
    gx, gv = torch.autograd.grad(loss(s, xs, vs), (xs, vs))
    return at.force.computeSegmentGradient(
        at.context, SPLITTINGS[splitting], xs.detach().numpy(), gx.numpy(), gv.numpy()
    )


@pytest.fixture(scope="module")
def fluid(where: Where) -> Live:
    """Contexts know nothing of the integrator: one serves all segments."""
    return live(start(1, "leapfrog Verlet").case, where)


@pytest.mark.parametrize("n_steps", [1, 30])
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_differences_of_segments_integrated_in_numpy(splitting: str, n_steps: int) -> None:
    """To 1e-6 of the largest.

    Every ninth coordinate and coefficient is moved, by some 1e-6: the force has continuous
    slopes, so a pair that crosses a knot meanwhile costs 1e-6/h of one kick's share.
    """
    s = start(n_steps, splitting)
    at = live(s.case, REFERENCE)
    gradient = native_gradient(s, splitting, at)
    parts = [gradient.positions, gradient.velocities, gradient.parameters]
    arrays = [a.numpy() for a in tensors(s)]
    for which, (array, found) in enumerate(zip(arrays, parts, strict=True)):
        some = np.arange(which, array.size, 9)

        def value(moves: Array, which: int = which, some: Array = some) -> float:
            moved = [a.copy() for a in arrays]
            moved[which].flat[some] += moves - 1
            x, v, c = (torch.from_numpy(a) for a in moved)
            return float(loss(s, *integrate(s, splitting, numpy_force(s), x, v, c)))

        expected = numerical_derivative(value, np.ones(len(some)), step=1e-6)
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found.flat[some], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("n_steps", [0, 1, 30])
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_backpropagation(fluid: Live, where: Where, splitting: str, n_steps: int) -> None:
    """To 1e-10 of the largest on the double platforms.

    In single precision each step's Hessian product is wrong by up to 1e-4 (see ``Case.tolerance``
    relative to the largest), of which it adds dt^2 H/m, about 0.1, to what is carried back: 1e-3
    over 30 steps if all errors pointed one way.
    """
    s = start(n_steps, splitting)
    x, v, c = (a.requires_grad_(True) for a in tensors(s))
    value = loss(s, *integrate(s, splitting, torch_force(s), x, v, c))
    expected = torch.autograd.grad(value, (x, v, c), materialize_grads=True)
    found = native_gradient(s, splitting, fluid)
    rtol = 1e-10 if where.precision == "double" else 1e-3
    parts = (found.positions, found.velocities, found.parameters)
    for a, b in zip(parts, expected, strict=True):
        atol = rtol * float(b.abs().max())
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=atol)


def test_a_wrong_splitting_is_noticed() -> None:
    """The comparison above tells the integrators apart by far."""
    s = start(7, "velocity Verlet")
    at = live(s.case, REFERENCE)
    right = native_gradient(s, "velocity Verlet", at).parameters
    xs, vs = integrate(s, "velocity Verlet", numpy_force(s), *tensors(s))
    gx, gv = torch.from_numpy(s.weights) * torch.stack([torch.cos(xs), 2 * vs])
    wrong = at.force.computeSegmentGradient(
        at.context, SPLITTINGS["leapfrog Verlet"], xs.numpy(), gx.numpy(), gv.numpy()
    ).parameters
    assert np.abs(wrong - right).max() > 1e-3 * np.abs(right).max()


def test_box_and_velocity_gradients_may_be_left_out(fluid: Live, where: Where) -> None:
    s = start(7, "leapfrog Verlet")
    xs, _ = integrate(s, "leapfrog Verlet", numpy_force(s), *tensors(s))
    arguments = (SPLITTINGS["leapfrog Verlet"], xs.numpy(), s.weights[0])
    short = fluid.force.computeSegmentGradient(fluid.context, *arguments)
    full = fluid.force.computeSegmentGradient(
        fluid.context, *arguments, np.zeros_like(s.weights[0]), s.case.box
    )
    rtol = 0 if where == REFERENCE else 1e3 * where.epsilon
    for a, b in zip(vars(short).values(), vars(full).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((3, 8, 3))}, r"positions.*\[steps \+ 1, 9, 3\].*\(3, 8, 3\)"),
        ({"positionGradients": np.zeros((2, 9, 3))}, "positionGradients"),
        ({"velocityGradients": np.zeros((4, 9, 3))}, "velocityGradients"),
        ({"splitting": (1.0, 2.0)}, "five numbers.*got 3 and 2"),
        (
            {"positions": np.full((3, 9, 3), np.nan)},
            "time 0: a coordinate of particle 0 is nan, expected a finite",
        ),
        ({"box": np.eye(3)}, "cutoff, 0.6 nm.*0.5 nm"),
    ],
)
def test_refused(change: dict[str, object], message: str) -> None:
    s = start(2, "leapfrog Verlet")
    at = live(s.case, REFERENCE)
    arguments: dict[str, object] = {
        "splitting": SPLITTINGS["leapfrog Verlet"],
        "positions": np.tile(s.case.positions, (3, 1, 1)),
        "positionGradients": np.zeros((3, 9, 3)),
    }
    with pytest.raises(openmm.OpenMMException, match=f"SplinePairForce: .*{message}"):
        at.force.computeSegmentGradient(at.context, **{**arguments, **change})


def test_constraints_and_virtual_sites_are_refused() -> None:
    """Their motion is not that of the steps that the gradient is carried back through."""
    s = start(2, "leapfrog Verlet")
    x = np.tile(s.case.positions, (3, 1, 1))
    for kind, message in (
        ("constraint", "no constraints, .* has 1"),
        ("site", "particle 4 is one"),
    ):
        force = s.case.force()
        system = s.case.system(force)
        if kind == "constraint":
            system.addConstraint(0, 1, 0.3)
        else:
            system.setVirtualSite(4, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
        context = context_on(REFERENCE, system)
        with pytest.raises(openmm.OpenMMException, match=f"SplinePairForce: .*{message}"):
            force.computeSegmentGradient(context, SPLITTINGS["leapfrog Verlet"], x, x)
