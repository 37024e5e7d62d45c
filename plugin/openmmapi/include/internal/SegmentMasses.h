/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_SEGMENTMASSES_H_
#define OPENMM_DIFFSIM_SEGMENTMASSES_H_

#include "openmm/System.h"
#include "openmm/Vec3.h"
#include <vector>

namespace DiffSim {

/**
 * Masses of the particles of segments; zero for those that do not move.
 */
class SegmentMasses {
public:
    /** Refuses a System with constraints or virtual sites, whose motion is not that of the steps. */
    SegmentMasses(const OpenMM::System& system);
    int getNumParticles() const {
        return inverseMasses.size();
    }
    bool moves(int particle) const {
        return inverseMasses[particle] != 0;
    }
    double getMass(int particle) const {
        return masses[particle];
    }
    double getInverseMass(int particle) const {
        return inverseMasses[particle];
    }
    /** In kJ/mol, of those that move. */
    double getKineticEnergy(const OpenMM::Vec3* velocities) const;
private:
    std::vector<double> masses, inverseMasses;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SEGMENTMASSES_H_*/
