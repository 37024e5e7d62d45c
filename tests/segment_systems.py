"""Small fluids that segments run in, with all that a segment may depend on as leaf tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from systems import MASS, argon, empty_system, langevin, lattice, simulate
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim.engine.segments import (
    Scheme,
    SegmentOptions,
    TorchField,
    langevin_middle,
    leapfrog,
    nose_hoover,
    velocity_verlet,
)
from openmm_diffsim.engine.segments import langevin as older_langevin
from openmm_diffsim.observables import Segment
from openmm_diffsim.potentials import (
    NetworkPotential,
    PairPotential,
    Potential,
    TorchMDNet,
    flat_parameters,
    set_flat_parameters,
)

Array = NDArray[np.float64]

N = 12  # particles
DT, KELVIN, FRICTION = 0.004, 120.0, 5.0  # ps, K, 1/ps
BOX = np.array([[1.3, 0.0, 0.0], [0.2, 1.3, 0.0], [-0.3, 0.1, 1.35]])  # nm
RESTING = 7  # the particle without mass
PULL = 5.0  # kJ/mol, the global parameter of the field

SCHEMES: dict[str, Scheme] = {
    "velocity Verlet": velocity_verlet(DT),
    "leapfrog Verlet": leapfrog(DT),
    "LangevinMiddle": langevin_middle(DT, KELVIN, FRICTION),
    "Langevin": older_langevin(DT, KELVIN, FRICTION),
    "Nose-Hoover": nose_hoover(DT, KELVIN, 25.0, None, 3, 2, 3),
}
PATHS = ("native", "others", "table", "TorchField")
"""What forces come from: the native force alone; with OpenMM's others; a table; with torch's."""


def lennard_jones() -> PairPotential:
    return argon(knots=25)


def spline() -> PairPotential:
    """Every coefficient is a parameter."""
    potential = diffsim.SplinePair(0.25, 0.6, 15)
    return potential.set_coefficients(argon(0.6, 15).spline_coefficients().detach())


def network(n_types: int = 1) -> NetworkPotential:
    """A graph network with weights as they may be after training, on a fixed repulsion."""
    net = TorchMDNet(0.6, n_types, hidden=8, rbf=6, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise)
    prior = argon(n_types=n_types)
    prior.requires_grad_(False)
    return NetworkPotential(net, prior=prior, n_types=n_types, name="network")


def other_forces() -> list[openmm.Force]:
    """Bonds, charges by particle mesh Ewald, and a field with a global parameter."""
    bonds = openmm.HarmonicBondForce()
    charges = openmm.NonbondedForce()
    charges.setNonbondedMethod(charges.PME)
    charges.setCutoffDistance(0.6)
    charges.setPMEParameters(5.0, 8, 8, 8)
    for i in range(N):
        charges.addParticle(0.2 * (-1) ** i, 1.0, 0.0)
    for i in (0, 4):
        bonds.addBond(i, i + 1, 0.35, 2000.0)
        charges.addException(i, i + 1, 0.0, 1.0, 0.0)
    waves = openmm.CustomExternalForce("pull*sin(4*x+3*y)*cos(5*z)")
    waves.addGlobalParameter("pull", PULL)
    for i in range(N):
        waves.addParticle(i)
    return [bonds, charges, waves]


def particles(others: bool = False, resting: bool = True) -> openmm.System:
    """In a triclinic box, with ``other_forces`` if asked for."""
    system = empty_system(N, BOX, MASS)
    for i in range(N):
        system.setParticleMass(i, MASS * (1 + 0.1 * i))
    if resting:
        system.setParticleMass(RESTING, 0.0)
    for force in other_forces() if others else ():
        system.addForce(force)
    return system


def fluid(
    path: str = "native",
    potential: Potential | None = None,
    integrator: openmm.Integrator | None = None,
    platform: str = "Reference",
    resting: bool = True,
) -> diffsim.StatePoint:
    """Argon in a triclinic box; with ``resting`` one particle has no mass."""
    potential = potential or lennard_jones()
    system = particles(path == "others", resting)
    potential.attach(system, backend="table" if path == "table" else "native")
    integrator = integrator or langevin(KELVIN)
    simulation = simulate(system, lattice(N, BOX, 0.02), integrator, platform)
    return diffsim.StatePoint(simulation, potential, temperature=KELVIN)


def waves(stiffness: Tensor) -> TorchField:
    """A field by torch, with a spring between two particles."""
    return TorchField(
        lambda x: (
            stiffness * (torch.sin(4 * x[:, 0]) * torch.cos(3 * x[:, 1])).sum()
            + 300 * (x[2] - x[5]).square().sum().sqrt()
        ),
        [stiffness],
    )


def no_force(x: Tensor, time: int) -> Tensor:
    """A field that makes a segment take the general way, and does nothing."""
    return torch.zeros_like(x)


@dataclass
class Problem:
    """A segment of a fluid, and the leaf tensors that it depends on."""

    liquid: diffsim.StatePoint
    scheme: Scheme
    steps: int
    leaves: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)  # of SegmentOptions

    def segment(self, **options: Any) -> Segment:
        """As the leaves have it."""
        leaves = self.leaves
        if "pull" in leaves:
            options["protocol"] = {"pull": leaves["pull"]}
        if "stiffness" in leaves:
            options["field"] = waves(leaves["stiffness"])
        return self.liquid.segment(
            self.steps,
            leaves["positions"],
            leaves["velocities"],
            SegmentOptions(
                integrator=self.scheme,
                noise=leaves.get("noise"),
                **{**self.options, **options},
            ),
        )

    def loss(self, **options: Any) -> Tensor:
        """Of a new segment."""
        return loss(self.segment(**options))

    def gradient(self, value: Tensor | None = None) -> dict[str, Tensor]:
        """Of ``value``, or of the loss, for every leaf."""
        value = self.loss() if value is None else value
        found = torch.autograd.grad(value, list(self.leaves.values()))
        return dict(zip(self.leaves, found, strict=True))


def loss(segment: Segment) -> Tensor:
    """Something not linear in positions and velocities of all times that are kept."""
    x, v = segment.positions, segment.velocities
    rng = np.random.default_rng(11)
    stride = round(float(segment.times[1] - segment.times[0]) / DT)
    a, b = torch.from_numpy(rng.uniform(0.5, 1.5, (2, 1001, *x.shape[-2:])))
    kept = slice(0, stride * x.shape[-3], stride)
    return (a[kept] * torch.sin(3 * x)).sum() + (b[kept] * v**2).sum()


def problem(
    path: str,
    name: str,
    steps: int,
    liquid: diffsim.StatePoint | None = None,
    segments: tuple[int, ...] = (),
) -> Problem:
    """From a lattice; ``segments`` is the shape of a batch."""
    liquid = liquid or fluid(path)
    scheme = SCHEMES[name]
    rng = np.random.default_rng(steps)
    moves = (np.arange(N) != RESTING)[:, None]
    arrays = {
        "positions": lattice(N, BOX, 0.02) + 0.02 * rng.uniform(-1, 1, (*segments, N, 3)),
        "velocities": 0.2 * moves * rng.normal(size=(*segments, N, 3)),
    }
    if scheme.is_noisy:
        arrays["noise"] = 0.03 * moves * rng.normal(size=(*segments, steps, N, 3))
    if path == "others":
        arrays["pull"] = PULL + rng.normal(size=steps + 1)
    if path == "TorchField":
        arrays["stiffness"] = np.array(3.0)
    leaves = {key: torch.tensor(a, requires_grad=True) for key, a in arrays.items()}
    leaves.update(dict(liquid.potential.named_parameters()))
    return Problem(liquid, scheme, steps, leaves)


OFFSETS: Mapping[str, float] = {
    "positions": 2e-6,  # nm: the knots of a spline, where its third derivative jumps, are far apart
    "velocities": 1e-4,
    "noise": 1e-4,
    "pull": 1e-3,
    "stiffness": 1e-1,
    "sigma": 1e-4,
    "epsilon": 1e-2,
    "values": 1e-4,
    "k": 1e-1,
}
"""How far a leaf is moved to either side, in its own unit: most for what acts least."""


def directional_difference(
    function: Callable[[], Tensor], leaf: Tensor, direction: Tensor, step: float
) -> float:
    """Four-point difference of what a function gives as a leaf moves along a direction."""
    start = leaf.detach().clone()
    total = 0.0
    with torch.no_grad():
        for offset, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            leaf.copy_(start + offset * step * direction)
            total += weight * float(function())
        leaf.copy_(start)
    return total / (12 * step)


def assert_gradient(p: Problem, rtol: float = 1e-6, shrink: float = 1.0) -> None:
    """Along a random direction for each leaf, to ``rtol`` of the gradient's largest entry.

    ``shrink`` is for the OFFSETS.
    """
    gradient = p.gradient()
    rng = np.random.default_rng(3)
    for name, leaf in p.leaves.items():
        direction = torch.from_numpy(np.array(rng.uniform(-1, 1, tuple(leaf.shape))))
        found = float((gradient[name] * direction).sum())
        expected = directional_difference(
            p.loss, leaf, direction, shrink * OFFSETS[name.rpartition(".")[2]]
        )
        largest = float(gradient[name].abs().max())
        assert largest > 0, f"nothing depends on {name}"
        assert abs(found - expected) <= rtol * largest, (name, found, expected, largest)


def assert_parameters(potential: Potential, value: Callable[[], Tensor]) -> None:
    """The gradient along random directions, against four-point differences, to 1e-6."""
    parameters = [p for p in potential.parameters() if p.requires_grad]
    found = torch.autograd.grad(value(), parameters, allow_unused=True)
    gradient = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).ravel()
            for p, g in zip(parameters, found, strict=True)
        ]
    )
    start = flat_parameters(potential)
    rng = np.random.default_rng(3)
    for _ in range(2):
        direction = torch.from_numpy(rng.normal(size=len(start)))
        sides = []
        for offset, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            set_flat_parameters(potential, start + offset * 1e-4 * direction)
            with torch.no_grad():
                sides.append(weight * float(value()))
        set_flat_parameters(potential, start)
        expected = sum(sides) / 12e-4
        size = float((gradient * direction).square().sum().sqrt())
        assert size > 0
        assert abs(float((gradient * direction).sum()) - expected) <= 1e-6 * size


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], rtol: float) -> None:
    """Gradients, each to ``rtol`` of its largest entry."""
    for name, tensor in expected.items():
        atol = rtol * float(tensor.abs().max())
        np.testing.assert_allclose(found[name], tensor, rtol=0, atol=atol, err_msg=name)


def free_particles(backend: str = "native") -> tuple[PairPotential, openmm.Context]:
    """Two particles beyond each other's reach, of 10 and 40 amu, and no box."""
    potential = argon()
    system = openmm.System()
    system.addParticle(10.0)
    system.addParticle(40.0)
    potential.attach(system, periodic=False, backend=backend)
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(DT), platform)
    context.setPositions(np.array([[0.0, 0, 0], [5.0, 0, 0]]))
    return potential, context
