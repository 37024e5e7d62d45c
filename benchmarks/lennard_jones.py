"""The Lennard-Jones liquid near its triple point: targets, simulations and the truth.

rho* = 0.845, T* = 1.0, N = 500, cutoff 2.5 sigma, dt = 0.005 tau, Langevin friction 1/tau, in
argon's units. ``FastStatePoint`` runs the same dynamics with a small compiled MD of its own, an
order of magnitude faster than a tabulated force in OpenMM: it serves to judge refined potentials
by an independent code, and to try many variants of a fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openmm
from numba import njit
from numpy.typing import NDArray
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.engine.recorder import FrameRecorder
from openmm_diffsim.engine.statepoint import run_until_equilibrated
from openmm_diffsim.statistics.kernels import pair_blocks
from openmm_diffsim.units import BAR, MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

SIGMA, EPSILON, MASS = 0.34, 0.996, 39.948  # nm, kJ/mol, amu
N = 500
CUTOFF = 2.5 * SIGMA
BOX = (N / 0.845) ** (1 / 3) * SIGMA
TEMPERATURE = EPSILON / MOLAR_GAS_CONSTANT
TAU = SIGMA * (MASS / EPSILON) ** 0.5  # ps
DT = 0.005 * TAU
BINS = 100
PRESSURE_UNIT = EPSILON / SIGMA**3 * BAR  # bar


def truth(r: Array) -> Array:
    """Cut and shifted Lennard-Jones potential, kJ/mol."""

    def u(x: Array | float) -> Array | float:
        return 4 * EPSILON * ((SIGMA / x) ** 12 - (SIGMA / x) ** 6)

    return np.where(r < CUTOFF, u(r) - u(CUTOFF), 0.0)


def random_positions(seed: int) -> Array:
    """Points drawn at random: to be minimized before MD."""
    return np.random.default_rng(seed).random((N, 3)) * BOX


def integrator(seed: int, temperature: float = TEMPERATURE) -> openmm.LangevinMiddleIntegrator:
    langevin = openmm.LangevinMiddleIntegrator(temperature, 1 / TAU, DT)
    langevin.setRandomNumberSeed(seed + 1)
    return langevin


def platform() -> tuple[openmm.Platform, dict[str, str]]:
    return openmm.Platform.getPlatform("CPU"), {"Threads": "1"}


def empty_system() -> openmm.System:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * BOX))
    for _ in range(N):
        system.addParticle(MASS)
    return system


def simulation(potential: diffsim.PairPotential, seed: int) -> app.Simulation:
    """A disordered fluid with the potential attached, on one thread of the CPU platform."""
    system = empty_system()
    potential.attach(system)
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(N):
        topology.addAtom("Ar", app.Element.getBySymbol("Ar"), topology.addResidue("Ar", chain))
    sim = app.Simulation(topology, system, integrator(seed), *platform())
    sim.context.setPositions(random_positions(seed))
    openmm.LocalEnergyMinimizer.minimize(sim.context, 50.0, 200)
    sim.context.setVelocitiesToTemperature(TEMPERATURE, seed + 1)
    return sim


def make_target(seed: int, frames: int = 1000, every: int = 50) -> dict[str, Array]:
    """g(r) and pressure (bar) with standard errors, from stock OpenMM's NonbondedForce."""
    system = empty_system()
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(CUTOFF)
    force.setUseDispersionCorrection(False)
    for _ in range(N):
        force.addParticle(0, SIGMA, EPSILON)
    system.addForce(force)
    langevin = integrator(seed + 1000, 2 * TEMPERATURE)
    context = openmm.Context(system, langevin, *platform())
    context.setPositions(random_positions(seed + 1000))
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 500)
    context.setVelocitiesToTemperature(2 * TEMPERATURE, seed + 1)
    langevin.step(2000)
    langevin.setTemperature(TEMPERATURE)
    langevin.step(5000)
    edges = np.linspace(0, CUTOFF, BINS + 1)
    ideal = N * (N - 1) / BOX**3 * 4 * np.pi / 3 * np.diff(edges**3)
    g, pressure = np.empty((frames, BINS)), np.empty(frames)
    for n in range(frames):
        langevin.step(every)
        x = context.getState(getPositions=True).getPositions(asNumpy=True)._value
        counts, virial = np.zeros(BINS, dtype=np.int64), 0.0
        for b in pair_blocks(x, np.eye(3) * BOX, CUTOFF):
            counts += 2 * np.histogram(b.distance, edges)[0]
            x6 = (SIGMA / b.distance) ** 6
            virial += float(np.sum(24 * EPSILON * (2 * x6**2 - x6)))
        g[n] = counts / ideal
        pressure[n] = BAR * (N * EPSILON + virial / 3) / BOX**3
    return {
        "r": 0.5 * (edges[1:] + edges[:-1]),
        "g": g.mean(axis=0),
        "g_error": _block_error(g),
        "pressure": pressure.mean(),
        "pressure_error": _block_error(pressure[:, None])[0],
    }


def _block_error(values: Array, blocks: int = 20) -> Array:
    means = values.reshape(blocks, -1, values.shape[1]).mean(axis=1)
    return means.std(axis=0, ddof=1) / blocks**0.5


class FastStatePoint(diffsim.StatePoint):
    """A StatePoint whose MD is the compiled one below instead of OpenMM's."""

    skin = 0.1

    def __init__(self, potential: diffsim.PairPotential, seed: int) -> None:
        sim = simulation(potential, seed)
        super().__init__(sim, potential)
        state = sim.context.getState(getPositions=True, getVelocities=True)
        self._x = np.array(state.getPositions(asNumpy=True)._value)
        self._v = np.array(state.getVelocities(asNumpy=True)._value)
        self._seed = seed
        self._recorders: dict[Any, FrameRecorder] = {}

    def step(self, steps: int) -> None:
        c = self.potential.coefficients(TEMPERATURE).detach().numpy()
        padded = np.concatenate([[3 * c[0] - 2 * c[1], 2 * c[0] - c[1]], c, np.zeros(4)])
        basis = self.potential.basis
        _langevin(
            self._x,
            self._v,
            (BOX, MASS, DT, 1 / TAU, EPSILON),
            (basis.r_min, basis.spacing, basis.cutoff, self.skin),
            padded,
            steps,
            self._seed,
        )
        self._seed = -1

    def snapshot(self) -> Any:
        return self._x.copy(), self._v.copy()

    def restore(self, snapshot: Any) -> None:
        self._x[:], self._v[:] = snapshot

    serialize, deserialize = snapshot, restore

    def where(self) -> str:
        return str(hash(self._x.tobytes()))

    def again(self, text: Any) -> Any:
        return text

    def sample(
        self,
        steps: int,
        every: int,
        record: Sequence[diffsim.Observable] = (),
        equilibration: int = 0,
        discard_transient: bool = False,
        progress: Callable[[int], None] | None = None,
        trajectory: None = None,
    ) -> diffsim.Samples:
        coefficients = self.potential.coefficients(TEMPERATURE).detach().numpy().copy()
        self.step(equilibration)
        key = tuple(record)
        if key not in self._recorders:
            self._recorders[key] = FrameRecorder(self.potential, self.simulation.context, record)
        recorder = self._recorders[key]
        recorder.clear()

        def go(n: int) -> None:
            for _ in range(n // every):
                self.step(every)
                recorder.add(self._x.copy(), np.eye(3) * BOX)
            if progress is not None:
                progress(n)

        def recorded() -> diffsim.Samples:
            return recorder.samples(coefficients, TEMPERATURE, None, every)

        if progress is not None:
            progress(equilibration)
        go(steps)
        if not discard_transient:
            return recorded()
        return run_until_equilibrated(recorded, lambda: go(steps // 2))


@njit(cache=True, fastmath=True)
def _neighbours(x, box, reach, neighbours, count):
    for i in range(len(x)):
        m = 0
        for j in range(i + 1, len(x)):
            r2 = 0.0
            for a in range(3):
                d = x[i, a] - x[j, a]
                d -= box * np.floor(d / box + 0.5)
                r2 += d * d
            if r2 < reach * reach:
                neighbours[i, m] = j
                m += 1
        count[i] = m


@njit(cache=True, fastmath=True)
def _forces(x, box, spline, c, neighbours, count, f):
    """c holds two coefficients continued in front, so that knot k is c[k + 2]."""
    r_min, spacing, cutoff, _ = spline
    f[:] = 0.0
    for i in range(len(x)):
        for m in range(count[i]):
            j = neighbours[i, m]
            dx = x[i, 0] - x[j, 0]
            dy = x[i, 1] - x[j, 1]
            dz = x[i, 2] - x[j, 2]
            dx -= box * np.floor(dx / box + 0.5)
            dy -= box * np.floor(dy / box + 0.5)
            dz -= box * np.floor(dz / box + 0.5)
            r2 = dx * dx + dy * dy + dz * dz
            if r2 >= cutoff * cutoff:
                continue
            r = np.sqrt(r2)
            u = (r - r_min) / spacing
            if u < 0:
                slope = c[3] - c[2]
            else:
                k = int(u)
                t = u - k
                slope = (
                    -((1 - t) ** 2) / 2 * c[k + 1]
                    + (3 * t * t - 4 * t) / 2 * c[k + 2]
                    + (-3 * t * t + 2 * t + 1) / 2 * c[k + 3]
                    + t * t / 2 * c[k + 4]
                )
            s = -slope / (spacing * r)
            f[i, 0] += s * dx
            f[i, 1] += s * dy
            f[i, 2] += s * dz
            f[j, 0] -= s * dx
            f[j, 1] -= s * dy
            f[j, 2] -= s * dz


@njit(cache=True)
def _langevin(x, v, dynamics, spline, c, steps, seed):
    """OpenMM's LangevinMiddle splitting: kick, half drift, noise, half drift."""
    box, mass, dt, friction, kt = dynamics
    if seed >= 0:
        np.random.seed(seed)
    n = len(x)
    neighbours = np.empty((n, n), dtype=np.int64)
    count = np.empty(n, dtype=np.int64)
    reach = spline[2] + spline[3]
    start = x.copy()
    _neighbours(x, box, reach, neighbours, count)
    f = np.empty((n, 3))
    _forces(x, box, spline, c, neighbours, count, f)
    damp = np.exp(-friction * dt)
    kick = np.sqrt((1 - damp * damp) * kt / mass)
    for _ in range(steps):
        furthest = 0.0
        for i in range(n):
            moved = 0.0
            for a in range(3):
                v[i, a] += dt * f[i, a] / mass
                x[i, a] += 0.5 * dt * v[i, a]
                v[i, a] = damp * v[i, a] + kick * np.random.normal()
                x[i, a] += 0.5 * dt * v[i, a]
                moved += (x[i, a] - start[i, a]) ** 2
            furthest = max(furthest, moved)
        if furthest > (0.5 * spline[3]) ** 2:
            _neighbours(x, box, reach, neighbours, count)
            start[:] = x
        _forces(x, box, spline, c, neighbours, count, f)
