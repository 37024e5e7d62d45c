#ifndef OPENMM_DIFFSIM_SEGMENTINTEGRATOR_H_
#define OPENMM_DIFFSIM_SEGMENTINTEGRATOR_H_

#include "SplinePairForce.h"
#include "internal/NoseHooverChain.h"
#include "openmm/internal/ContextImpl.h"
#include <memory>
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

/**
 * The propagator of a chain, or null without one. A chain takes the place of the scale of steps of LangevinMiddle's form;
 * others, which have a last kick, are refused.
 */
std::unique_ptr<ChainPropagator> makeChainPropagator(const NoseHooverChain* chain, const StepSplitting& splitting);

/**
 * Integrates segments: positions and velocities in double precision here, forces by the Context, all of those that its own
 * integrator uses. It moves the particles of the Context and its box, and puts both back when restore() is called.
 */
class SegmentIntegrator {
public:
    /**
     * @param box   3 vectors in nm
     */
    SegmentIntegrator(OpenMM::ContextImpl& context, const SegmentMasses& masses, const StepSplitting& splitting,
            const ChainPropagator* chain, const OpenMM::Vec3* box);
    /**
     * Integrate; see SplinePairForce::computeSegment().
     */
    void run(int numSteps, OpenMM::Vec3* positions, OpenMM::Vec3* velocities, const OpenMM::Vec3* noise, double* chainStates);
    void restore();
private:
    void setBox(const OpenMM::Vec3* box, const OpenMM::Vec3* positions);
    void computeForces(int step, const OpenMM::Vec3* positions);
    void kick(double time, OpenMM::Vec3* velocities) const;
    void drift(double time, OpenMM::Vec3* positions, const OpenMM::Vec3* velocities) const;
    void scaleAndDisturb(double scale, const OpenMM::Vec3* noise, OpenMM::Vec3* velocities) const;
    OpenMM::ContextImpl& context;
    const SegmentMasses& masses;
    StepSplitting splitting;
    const ChainPropagator* chain;
    OpenMM::Vec3 ownBox[3], runBox[3];
    std::vector<OpenMM::Vec3> ownPositions, present, forces;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SEGMENTINTEGRATOR_H_*/
