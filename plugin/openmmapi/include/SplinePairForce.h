#ifndef OPENMM_DIFFSIM_SPLINEPAIRFORCE_H_
#define OPENMM_DIFFSIM_SPLINEPAIRFORCE_H_

#include "internal/windowsExportDiffSim.h"
#include "openmm/Context.h"
#include "openmm/Force.h"
#include "openmm/Vec3.h"
#include <set>
#include <utility>
#include <vector>

namespace DiffSim {

/**
 * Where derivatives are taken: at the present positions of the Context, or at stored frames.
 */
struct PairFrames {
    /** Number of frames; ignored when positions is null. */
    int numFrames = 1;
    /** numFrames * numParticles positions, in nm, or null for those of the Context. */
    const OpenMM::Vec3* positions = nullptr;
    /** 3 * numFrames vectors of periodic boxes in reduced form, in nm, or null for the box of the Context. */
    const OpenMM::Vec3* boxes = nullptr;
};

/**
 * A histogram of pair distances. Counted are ordered pairs (a, b) with a in the first selection and b in the
 * second, so a pair whose particles are in both counts twice. Neither the exclusions nor the cutoff of the force
 * matter.
 */
struct PairHistogram {
    /** Edges of the bins, in nm, strictly rising; bin i holds edges[i] <= r < edges[i+1]. */
    std::vector<double> edges;
    /** One number per particle: bit 0 (value 1) for the first selection, bit 1 (value 2) for the second. */
    std::vector<int> selections;
    /** Empty, or one number per particle: pairs with the same number, unless it is negative, are left out. */
    std::vector<int> groups;
};

/**
 * Sums over the pairs of each frame, all computed in one pass.
 */
struct PairSums {
    bool includeBasis = false;
    bool includeVirial = false;
    std::vector<PairHistogram> histograms;
    /** dU/dc of each frame, numFrames * numTypePairs * numCoefficients numbers. */
    std::vector<double> basis;
    /** dW/dc in the same order, W = -3V dU/dV in kJ/mol when whole molecules move. */
    std::vector<double> virial;
    /** For each histogram, the counts of each frame, numFrames * numBins. */
    std::vector<std::vector<long long> > counts;
};

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
struct NoseHooverChain {
    /** In K, and in 1/ps. */
    double temperature, frequency;
    int degreesOfFreedom;
    int length = 3, multipleTimeSteps = 3, yoshidaSuzuki = 7;
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
 * What else to do when a gradient is carried back, and what that takes.
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
    /** The chain that took the place of the scale, or null. It takes velocities and chainStates at each stored time. */
    const NoseHooverChain* chain = nullptr;
    const OpenMM::Vec3* velocities = nullptr;
    const double* chainStates = nullptr;
};

/**
 * A pair force whose potential is a uniform cubic B-spline for each pair of particle types,
 *
 *     U = sum over pairs of u_p(r),   u_p(r) = sum_k c_pk B_k(r),
 *
 * and which knows its derivatives. With numKnots knots from rMin to the cutoff there are numKnots-2 coefficients,
 * B_k being centered at knot k. The functions that straddle the cutoff are left out, so u, u' and u'' vanish there;
 * u''(rMin) = 0, and below rMin the potential goes on as a straight line.
 *
 * Types are numbered from 0. Pairs of types are numbered as the upper triangle row by row: (0,0), (0,1), ..., (1,1), ....
 * A particle of type -1 does not interact.
 */
class OPENMM_EXPORT_DIFFSIM SplinePairForce : public OpenMM::Force {
public:
    /**
     * How distances are computed; the numbers are those of OpenMM's own nonbonded forces.
     */
    enum NonbondedMethod {
        /** A cutoff, without periodic boundary conditions. */
        CutoffNonPeriodic = 1,
        /** A cutoff and the nearest image, in a rectangular or triclinic box. */
        CutoffPeriodic = 2
    };
    /**
     * Create a SplinePairForce with all coefficients zero.
     *
     * @param numTypes   the number of particle types, at least 1
     * @param rMin       the first knot, in nm, above zero
     * @param cutoff     the last knot, in nm; the potential is zero beyond
     * @param numKnots   the number of knots, both ends included, at least 6
     */
    SplinePairForce(int numTypes, double rMin, double cutoff, int numKnots);
    int getNumTypes() const {
        return numTypes;
    }
    /** The number of unordered pairs of types, numTypes*(numTypes+1)/2. */
    int getNumTypePairs() const {
        return numTypes*(numTypes+1)/2;
    }
    /** The first knot, in nm. */
    double getRMin() const {
        return rMin;
    }
    /** The last knot, in nm. */
    double getCutoffDistance() const {
        return cutoff;
    }
    int getNumKnots() const {
        return numKnots;
    }
    /** The number of coefficients of each pair of types, numKnots-2. */
    int getNumCoefficients() const {
        return numKnots-2;
    }
    /** The distance between knots, in nm. */
    double getSpacing() const {
        return (cutoff-rMin)/(numKnots-1);
    }
    /** The index of a pair of types, in either order. */
    int getTypePairIndex(int type1, int type2) const;
    /**
     * Get the coefficients of a pair of types, in kJ/mol.
     */
    const std::vector<double>& getTypePairCoefficients(int type1, int type2) const;
    /**
     * Set the coefficients of a pair of types, in kJ/mol. A Context that exists already learns of it through
     * updateParametersInContext().
     */
    void setTypePairCoefficients(int type1, int type2, const std::vector<double>& coefficients);
    int getNumParticles() const {
        return types.size();
    }
    /**
     * Add a particle. Call it once for each particle of the System, in their order.
     *
     * @param type   the type of the particle, or -1 if it does not interact
     * @return the index of the particle that was added
     */
    int addParticle(int type);
    int getParticleType(int index) const;
    void setParticleType(int index, int type);
    /** The types of all particles. */
    const std::vector<int>& getParticleTypes() const {
        return types;
    }
    int getNumExclusions() const {
        return exclusions.size();
    }
    /**
     * Exclude the interaction of a pair of particles. Where the System has other nonbonded forces, some platforms
     * want their exclusions to be the same.
     *
     * @return the index of the exclusion that was added
     */
    int addExclusion(int particle1, int particle2);
    void getExclusionParticles(int index, int& particle1, int& particle2) const;
    void setExclusionParticles(int index, int particle1, int particle2);
    /**
     * Exclude the pairs that are connected by up to bondCutoff bonds.
     */
    void createExclusionsFromBonds(const std::vector<std::pair<int, int> >& bonds, int bondCutoff);
    NonbondedMethod getNonbondedMethod() const {
        return nonbondedMethod;
    }
    void setNonbondedMethod(NonbondedMethod method);
    bool usesPeriodicBoundaryConditions() const {
        return nonbondedMethod == CutoffPeriodic;
    }
    /**
     * Copy the coefficients and the particle types to a Context. Nothing is rebuilt. Everything else (knots, exclusions,
     * the nonbonded method) is fixed when the Context is made.
     */
    void updateParametersInContext(OpenMM::Context& context);
    /**
     * Sum basis functions, virials and histograms over the pairs of frames.
     */
    void computeSums(OpenMM::Context& context, const PairFrames& frames, PairSums& sums) const;
    /**
     * For each frame, the product of the Hessian d2U/dx2 with a vector, and that of a vector with dF/dc:
     *
     *     hessianProduct_i = sum_j (d2U/dx_i dx_j) v_j,     parameterProduct_k = sum_i v_i . dF_i/dc_k.
     *
     * @param vectors            one for each particle of each frame
     * @param hessianProduct     one for each particle of each frame in kJ/mol/nm^2 times the unit of v, or null
     * @param parameterProduct   numFrames * numTypePairs * numCoefficients numbers in 1/nm times the unit of v, or null
     */
    void computeProducts(OpenMM::Context& context, const PairFrames& frames, const OpenMM::Vec3* vectors,
            OpenMM::Vec3* hessianProduct, double* parameterProduct) const;
    /**
     * Integrate a segment from given positions and velocities, in double precision, with the forces of all Forces of the
     * Context in the force groups of its integrator. One evaluation of the forces is made for each stored time. Particles
     * without mass do not move. Nothing else acts: Forces that change the state of a Context between steps, such as
     * barostats, CMMotionRemover and AndersenThermostat, do not. The positions and the box of the Context are put back, also
     * after an exception; velocities, time and parameters are never touched. Constraints and virtual sites are refused, and so
     * is a segment that explodes.
     *
     * @param splitting     the integrator
     * @param numSteps      steps of the segment, which has numSteps+1 times
     * @param positions     numParticles positions for each time, in nm; the first are given, the others computed
     * @param velocities    likewise, in nm/ps
     * @param noise         of each step and particle, in nm/ps, or null for none
     * @param box           3 vectors in nm, constant along the segment, or null for the box of the Context
     * @param chain         what takes the place of the scale, or null; with it there is no noise
     * @param chainStates   2*length numbers for each time; the first are given, the others computed. Null without a chain.
     */
    void computeSegment(OpenMM::Context& context, const StepSplitting& splitting, int numSteps, OpenMM::Vec3* positions,
            OpenMM::Vec3* velocities, const OpenMM::Vec3* noise, const OpenMM::Vec3* box, const NoseHooverChain* chain = nullptr,
            double* chainStates = nullptr) const;
    /**
     * Carry a gradient back through a whole stored segment that was integrated with this force alone, step by step as
     * it was integrated: the discrete adjoint, exact to rounding. Masses are those of the System; a particle without mass
     * does not move. Parameters are those that the Context has now. If other Forces acted as well, how they depend on
     * positions is left out: the caller takes care.
     *
     * @param splitting           the integrator
     * @param numSteps            steps of the segment, which has numSteps+1 stored times
     * @param positions           numParticles positions for each stored time, in nm
     * @param box                 3 vectors in nm, constant along the segment, or null for the box of the Context
     * @param positionGradients   dL/dx at each stored time, by whatever way L depends on them directly, or null for zero
     * @param velocityGradients   dL/dv likewise. Times after the last at which either is not zero cost nothing.
     * @param gradient            the result
     */
    void computeSegmentGradient(OpenMM::Context& context, const StepSplitting& splitting, int numSteps,
            const OpenMM::Vec3* positions, const OpenMM::Vec3* box, const OpenMM::Vec3* positionGradients,
            const OpenMM::Vec3* velocityGradients, SegmentGradient& gradient,
            const SegmentGradientOptions& options = SegmentGradientOptions()) const;
protected:
    OpenMM::ForceImpl* createImpl() const;
private:
    void checkType(int type, int lowest) const;
    void checkParticle(int index) const;
    void checkExclusion(int index) const;
    int numTypes, numKnots;
    double rMin, cutoff;
    NonbondedMethod nonbondedMethod;
    std::vector<std::vector<double> > coefficients;
    std::vector<int> types;
    std::vector<std::pair<int, int> > exclusions;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SPLINEPAIRFORCE_H_*/
