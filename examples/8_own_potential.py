"""A kind of potential of one's own is learned from two averages, without a change to the package.

The class and its adapter are in harmonic_trap.py; the measured averages are exact ones.
"""

import numpy as np
from harmonic_trap import Trap

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid


class Moments(diffsim.Observable):  # <|x|^2> in nm^2 and <x> in nm, of a particle
    n_values, histograms = 2, ()

    def recorder(self, particles):
        return self

    def record(self, frame, counts):
        return np.array([3 * np.mean(frame.positions**2), frame.positions[:, 0].mean()])

    def values(self, records, conditions):
        return records


trap = Trap(strength=60.0, tilt=0.0)
topology, system = fluid(100, 10.0, 39.948)
trap.attach(system)
simulation = Dynamics(300.0, timestep=0.01, platform="Reference").simulation(topology, system, 1)
simulation.context.setPositions(np.zeros((100, 3)))
kt, strength, tilt = 0.0083144626 * 300.0, 100.0, 20.0  # what was measured is of this trap
exact = np.array([3 * kt / strength + (tilt / strength) ** 2, -tilt / strength])
target = diffsim.Target(diffsim.StatePoint(simulation, trap), Moments(), exact, uncertainty=1e-3)
diffsim.Refinement(trap, [target]).run(rounds=6, steps=4000, every=20)
print(trap.c.tolist())
assert np.allclose(trap.c.tolist(), [strength, tilt], rtol=0.05)
