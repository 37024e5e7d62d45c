/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_SEGMENTINTEGRATOR_H_
#define OPENMM_DIFFSIM_SEGMENTINTEGRATOR_H_

#include "SegmentPropagator.h"
#include "SplinePairKernels.h"
#include "internal/ChainPropagator.h"
#include "internal/SegmentMasses.h"
#include "openmm/internal/ContextImpl.h"
#include <vector>

namespace DiffSim {

/**
 * Integrates one segment: positions and velocities in double precision here, forces by the Context, all of those that its own
 * integrator uses. It moves the particles of the Context and its box, and puts both back when restore() is called.
 */
class SegmentIntegrator {
public:
    /**
     * @param box   3 vectors in nm
     */
    SegmentIntegrator(OpenMM::ContextImpl& context, CalcSplinePairForceKernel& kernel, const SegmentMasses& masses,
            const StepSplitting& splitting, const ChainPropagator* chain, const OpenMM::Vec3* box);
    /**
     * Integrate; see SegmentPropagator::integrate().
     */
    void run(const Segment& segment, const OpenMM::Vec3* noise);
    void restore();
private:
    void setBox(const OpenMM::Vec3* box);
    void computeForces(int step, const OpenMM::Vec3* positions);
    void evaluate(const OpenMM::Vec3* positions, int groups);
    void kick(double time, OpenMM::Vec3* velocities) const;
    void drift(double time, OpenMM::Vec3* positions, const OpenMM::Vec3* velocities) const;
    void scaleAndDisturb(double scale, const OpenMM::Vec3* noise, OpenMM::Vec3* velocities) const;
    OpenMM::ContextImpl& context;
    CalcSplinePairForceKernel& kernel;
    const SegmentMasses& masses;
    StepSplitting splitting;
    const ChainPropagator* chain;
    OpenMM::Vec3 ownBox[3], runBox[3];
    bool boxIsNew; // no forces have been computed in it
    std::vector<OpenMM::Vec3> ownPositions, present, forces;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SEGMENTINTEGRATOR_H_*/
