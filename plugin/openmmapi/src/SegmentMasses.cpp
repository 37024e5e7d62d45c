/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "internal/SegmentMasses.h"
#include "internal/refuse.h"

using namespace DiffSim;
using namespace OpenMM;

SegmentMasses::SegmentMasses(const System& system) {
    if (system.getNumConstraints() > 0)
        refuse("a segment knows no constraints, but the System has ", system.getNumConstraints());
    for (int i = 0; i < system.getNumParticles(); i++) {
        if (system.isVirtualSite(i))
            refuse("a segment knows no virtual sites, but particle ", i, " is one");
        masses.push_back(system.getParticleMass(i));
        inverseMasses.push_back(masses[i] == 0 ? 0 : 1/masses[i]);
    }
}

double SegmentMasses::getKineticEnergy(const Vec3* velocities) const {
    double energy = 0;
    for (int i = 0; i < getNumParticles(); i++)
        energy += 0.5*masses[i]*velocities[i].dot(velocities[i]);
    return energy;
}
