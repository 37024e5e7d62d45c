/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

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

class SplinePairForceImpl;

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
protected:
    OpenMM::ForceImpl* createImpl() const;
private:
    friend class SegmentPropagator; // which works with the implementations of force and Context
    SplinePairForceImpl& getImpl(OpenMM::Context& context) const;
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
