/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_SEGMENTPROPAGATOR_H_
#define OPENMM_DIFFSIM_SEGMENTPROPAGATOR_H_

#include "SplinePairForce.h"
#include "internal/windowsExportDiffSim.h"
#include "openmm/Context.h"
#include "openmm/Vec3.h"
#include <memory>
#include <vector>

namespace DiffSim {

class ChainPropagator;
class SegmentMasses;

/**
 * One step of an integrator as a splitting into kicks and drifts,
 *
 *     v1 = v + kick1 F(x)/m;  x1 = x + drift1 v1;  v2 = scale v1 + noise;  x' = x1 + drift2 v2;  v' = v2 + kick2 F(x')/m.
 *
 * VerletIntegrator (leapfrog) is (dt, dt, 1, 0, 0), velocity Verlet (dt/2, dt, 1, 0, dt/2), and
 * LangevinMiddleIntegrator (dt, dt/2, exp(-friction dt), dt/2, 0).
 */
struct StepSplitting {
    double kick1, drift1, scale, drift2, kick2;
};

/**
 * A Nose-Hoover chain that thermostats all particles with mass, as that of OpenMM's NoseHooverIntegrator. The scale of a
 * step of the form (dt, dt/2, scale, dt/2, 0) is then a function of the kinetic energy of v1 and of the chain's state: the
 * positions of its thermostats and, after these, their velocities in 1/ps, 2*length numbers.
 */
struct ChainThermostat {
    /** In K, and in 1/ps. */
    double temperature, frequency;
    int degreesOfFreedom;
    int length = 3, multipleTimeSteps = 3, yoshidaSuzuki = 7;
    /** Throws an OpenMMException where a number is out of range. */
    OPENMM_EXPORT_DIFFSIM void check() const;
};

/**
 * The gradient of a function of a trajectory segment, given its derivatives with respect to the positions and
 * velocities at each stored time.
 */
struct SegmentGradient {
    /** dL/dc, numTypePairs * numCoefficients. */
    std::vector<double> parameters;
    /** dL/dx(0) and dL/dv(0), one per particle. */
    std::vector<OpenMM::Vec3> positions, velocities;
    /** dL/d(noise) of each step and particle, if asked for; it is the adjoint of v2. */
    std::vector<OpenMM::Vec3> noise;
    /** dL/d(state at time 0) of a chain; empty without one. */
    std::vector<double> chainState;
    /**
     * Norm of the adjoint at each time, sqrt(sum over particles with mass of (|dL/dx|^2 dt^2 + |dL/dv|^2)/m) with
     * dt = drift1+drift2, all gradients at that time being included and before any clipping. Where steps have a last kick, dL/dx
     * has what it does as well. Zero after the last time with a gradient.
     */
    std::vector<double> growth;
};

/**
 * What else to do when a gradient is carried back.
 */
struct SegmentGradientOptions {
    bool includeNoise = false;
    /**
     * Number of steps, or 0 for all. As many steps before the last time with a gradient, and again each time after as many
     * more, the adjoint of the state is dropped: what follows is then taken to depend on parameters, not on that state.
     */
    int truncation = 0;
    /** The adjoint is scaled down where its norm exceeds this times that at the last time with a gradient; at least 1, or 0 for never. */
    double clipping = 0;
};

/**
 * A segment of T steps as the arrays that hold it: T+1 times, and numParticles positions and velocities for each.
 */
template <class Vector, class Number>
struct SegmentArrays {
    int numSteps;
    /** In nm, never wrapped into the box. */
    Vector* positions;
    /** In nm/ps. */
    Vector* velocities = nullptr;
    /** 2*length numbers for each time, of a chain; null without one. */
    Number* chainStates = nullptr;
};

typedef SegmentArrays<OpenMM::Vec3, double> Segment;
typedef SegmentArrays<const OpenMM::Vec3, const double> StoredSegment;

/**
 * Integrates segments of trajectories in a Context, and carries gradients back through them. It may not outlive the Context
 * and the force that it was made from. Systems with constraints or virtual sites are refused.
 */
class OPENMM_EXPORT_DIFFSIM SegmentPropagator {
public:
    /**
     * @param context     whose forces act, on its platform; the force is one of its System
     * @param force       the force whose coefficients a gradient is taken with respect to
     * @param splitting   the integrator
     * @param chain       what takes the place of the splitting's scale, or null
     * @param box         3 vectors in nm, constant along each segment, or null for the box that the Context then has
     */
    SegmentPropagator(OpenMM::Context& context, const SplinePairForce& force, const StepSplitting& splitting,
            const ChainThermostat* chain = nullptr, const OpenMM::Vec3* box = nullptr);
    ~SegmentPropagator();
    /**
     * Integrate a segment, in double precision, with the forces of all Forces of the Context in the force groups of its
     * integrator. One evaluation of the forces is made for each stored time. Particles without mass do not move. Nothing else
     * acts: Forces that change the state of a Context between steps, such as barostats, CMMotionRemover and
     * AndersenThermostat, do not. The positions and the box of the Context are put back, also after an exception; velocities,
     * time and parameters are never touched. A segment that explodes is refused.
     *
     * @param segment   what it has at the first time is given, all else computed
     * @param noise     of each step and particle, in nm/ps, or null for none; there is none with a chain
     */
    void integrate(const Segment& segment, const OpenMM::Vec3* noise = nullptr);
    /**
     * Carry a gradient back through a whole stored segment that was integrated with this force alone, step by step as
     * it was integrated: the discrete adjoint, exact to rounding. Masses are those of the System; a particle without mass
     * does not move. Parameters are those that the Context has now. If other Forces acted as well, how they depend on
     * positions is left out: the caller takes care.
     *
     * @param segment             velocities and chain states may be left out where there is no chain
     * @param positionGradients   dL/dx at each stored time, by whatever way L depends on them directly, or null for zero
     * @param velocityGradients   dL/dv likewise. Times after the last at which either is not zero cost nothing.
     */
    SegmentGradient computeGradient(const StoredSegment& segment, const OpenMM::Vec3* positionGradients,
            const OpenMM::Vec3* velocityGradients, const SegmentGradientOptions& options = SegmentGradientOptions());
private:
    OpenMM::Context& context;
    const SplinePairForce& force;
    StepSplitting splitting;
    std::unique_ptr<SegmentMasses> masses;
    std::unique_ptr<ChainPropagator> chain;
    std::vector<OpenMM::Vec3> box; // empty for that of the Context
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SEGMENTPROPAGATOR_H_*/
