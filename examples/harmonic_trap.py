"""How to add a kind of potential: what it depends on, and an adapter that connects it with OpenMM.

Here a trap, U = strength |x|^2 / 2 + tilt x of every particle: a CustomExternalForce with two
global parameters, which the package knows nothing of.
"""

import numpy as np
import openmm
import torch

import openmm_diffsim as diffsim


class Trap(diffsim.Potential):
    """strength in kJ/mol/nm^2 and tilt in kJ/mol/nm: both are coefficients and parameters."""

    energy_is_linear = is_linear = True  # U in the coefficients, and these in the parameters

    def __init__(self, strength, tilt):  # kJ/mol/nm^2 and kJ/mol/nm: the coefficients themselves
        super().__init__()
        self.c = torch.nn.Parameter(torch.tensor([strength, tilt], dtype=torch.float64))


@diffsim.adapts(Trap)
class TrapAdapter(diffsim.Adapter):
    def build(self, system, options):
        strength, tilt = (f"{self.potential.name}_{what}" for what in ("strength", "tilt"))
        force = openmm.CustomExternalForce(f"{strength} * (x^2 + y^2 + z^2) / 2 + {tilt} * x")
        force.addGlobalParameter(strength, self.potential.c[0].item())
        force.addGlobalParameter(tilt, self.potential.c[1].item())
        for i in range(system.getNumParticles()):
            force.addParticle(i)
        return force

    @classmethod
    def own(cls, force):
        return force if isinstance(force, openmm.CustomExternalForce) else None

    def update(self, context, temperature):
        for k, value in enumerate(self.potential.c.tolist()):
            self.force.setGlobalParameterDefaultValue(k, value)  # in what is written to a file
            if context is not None:
                context.setParameter(self.force.getGlobalParameterName(k), value)

    def recorder(self, context, particles, trajectory):
        return TrapRecorder()


class TrapRecorder(diffsim.FeatureRecorder):
    def features(self, x, box):  # dU/dc, and that of the virial, which a trap has no use for
        return np.array([np.sum(x**2) / 2, x[:, 0].sum()]), np.zeros(2)
