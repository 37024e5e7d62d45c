"""Harmonic oscillators, whose time correlation functions and derivatives are known exactly.

Each is a particle bound to one of its own that has no mass, far from all others, by a pair
potential that is harmonic as far as the particle ever goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import openmm_diffsim as diffsim
from openmm_diffsim.engine.recorder import FrameRecorder
from openmm_diffsim.engine.segments import Scheme
from openmm_diffsim.potentials import PairPotential, SplineBasis
from openmm_diffsim.units import MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

MASS, STIFFNESS, KELVIN = 20.0, 250.0, 300.0  # amu, kJ/mol/nm^2, K
FREQUENCY = (STIFFNESS / MASS) ** 0.5  # 1/ps, of radians
THERMAL = MOLAR_GAS_CONSTANT * KELVIN
SPREAD = (THERMAL / STIFFNESS) ** 0.5  # nm, of each coordinate


class Harmonic(PairPotential):
    """u(r) = k (r^2 - R^2) / 2, bent smoothly to zero beyond R, where no particle comes."""

    def __init__(self, stiffness: float = STIFFNESS) -> None:
        super().__init__(SplineBasis(0.004, 1.1, 138), n_types=2)
        self.stiffness = nn.Parameter(torch.tensor(stiffness, dtype=torch.float64))
        r, end, far = self.basis.centers, 0.75, 1.06
        x = np.clip((r - end) / (far - end), 0, 1)
        shape = (0.5 * r**2 - 0.5 * far**2) * (1 - x**3 * (10 - 15 * x + 6 * x**2))
        self.shape = self.basis.interpolate(torch.from_numpy(np.where(r < far, shape, 0.0)))

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        """Only a particle and its anchor, of types 0 and 1, attract each other."""
        nothing = torch.zeros_like(self.shape)
        return torch.stack([nothing, self.stiffness * self.shape, nothing])


@dataclass
class Oscillators:
    """Oscillators in a Context, and their anchors."""

    potential: Harmonic
    context: openmm.Context
    anchors: Array  # [oscillators, 3]

    @property
    def atoms(self) -> NDArray[np.int64]:
        """The particles that move."""
        return np.arange(len(self.anchors))

    def draw(self, rng: np.random.Generator) -> Array:
        """Positions of all particles in equilibrium, exactly."""
        moved = self.anchors + SPREAD * rng.standard_normal(self.anchors.shape)
        return np.concatenate([moved, self.anchors])

    def sample(
        self, observables: list[diffsim.Observable], frames: int, seed: int
    ) -> diffsim.Samples:
        """Independent frames."""
        rng = np.random.default_rng(seed)
        recorder = FrameRecorder(self.potential, self.context, observables, KELVIN)
        for _ in range(frames):
            recorder.add(self.draw(rng), None)
        return recorder.samples(self.potential.coefficients().detach().numpy(), KELVIN, None, 1)

    def simulate(
        self, observables: list[diffsim.Observable], frames: int, every: int, seed: int
    ) -> diffsim.Samples:
        """Frames of one stretch of MD, from a start in equilibrium."""
        rng = np.random.default_rng(seed)
        integrator = self.context.getIntegrator()
        integrator.setRandomNumberSeed(seed)
        self.context.reinitialize()
        self.context.setPositions(self.draw(rng))
        self.context.setVelocitiesToTemperature(KELVIN, seed)
        recorder = FrameRecorder(self.potential, self.context, observables, KELVIN)
        for _ in range(frames):
            integrator.step(every)
            state = self.context.getState(getPositions=True)
            recorder.add(state.getPositions(asNumpy=True)._value, None)
        return recorder.samples(self.potential.coefficients().detach().numpy(), KELVIN, None, every)


def oscillators(
    n: int, backend: str | None = None, integrator: openmm.Integrator | None = None
) -> Oscillators:
    """n of them, on the Reference platform."""
    potential = Harmonic()
    system = openmm.System()
    for mass in [MASS] * n + [0.0] * n:
        system.addParticle(mass)
    types = [0] * n + [1] * n
    potential.attach(system, types=types, periodic=False, backend=backend)
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), platform)
    anchors = 4.0 * np.stack([np.arange(n), np.zeros(n), np.zeros(n)], axis=1)
    context.setPositions(np.concatenate([anchors, anchors + np.array([0.1, 0, 0])]))
    return Oscillators(potential, context, anchors)


def exact_correlations(
    scheme: Scheme, lags: NDArray[np.int64], stiffness: float = STIFFNESS
) -> tuple[Array, Array, Array, Array]:
    """<x(0).x(t)>, <v(0).v(t)> and their derivatives with respect to k, [lags] each.

    A step is linear, (x, v)' = M (x, v) + noise, and at the start v = drawn + lag k x / m; so the
    correlations are those of the start times powers of M, whose derivatives torch takes.
    """
    k = torch.tensor(stiffness, dtype=torch.float64, requires_grad=True)
    kick1, drift1, scale, drift2, kick2 = scheme.splitting
    one, nothing = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def matrix(rows: list[list[Tensor]]) -> Tensor:
        return torch.stack([torch.stack(row) for row in rows])

    first = matrix([[one, nothing], [-kick1 * k / MASS, one]])
    middle = matrix([[one, one * (drift1 + drift2 * scale)], [nothing, one * scale]])
    last = matrix([[one, nothing], [-kick2 * k / MASS, one]])
    step = last @ middle @ first
    shift = scheme.lag * k / MASS
    xx, vx = THERMAL / k, shift * THERMAL / k
    vv = THERMAL / MASS + shift**2 * THERMAL / k
    start = 3 * matrix([[xx, vx], [vx, vv]])
    later = [torch.linalg.matrix_power(step, int(lag)) @ start for lag in lags]
    results = [[correlation[i, i] for correlation in later] for i in (0, 1)]
    slopes = [[float(torch.autograd.grad(c, k, retain_graph=True)[0]) for c in r] for r in results]
    values = [[float(c.detach()) for c in r] for r in results]
    return (*(np.array(part) for part in values), *(np.array(part) for part in slopes))
