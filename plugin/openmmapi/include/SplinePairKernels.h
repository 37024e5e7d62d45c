/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_SPLINEPAIRKERNELS_H_
#define OPENMM_DIFFSIM_SPLINEPAIRKERNELS_H_

#include "SplinePairForce.h"
#include "openmm/KernelImpl.h"
#include "openmm/Platform.h"
#include "openmm/System.h"
#include "openmm/internal/ContextImpl.h"
#include <string>
#include <vector>

namespace DiffSim {

/**
 * One configuration. A kernel computes derivatives at whatever it is given here; it never looks at the positions
 * that the Context has.
 */
struct PairConfiguration {
    /** One for each particle, in nm. */
    const OpenMM::Vec3* positions;
    /** The periodic box in reduced form, in nm; meaningless where the force is not periodic. */
    OpenMM::Vec3 box[3];
    /** Position of each particle relative to the center of its molecule, in nm; null where molecules are single particles. */
    const OpenMM::Vec3* offsets = nullptr;
};

/**
 * What a platform does for a SplinePairForce.
 */
class OPENMM_EXPORT_DIFFSIM CalcSplinePairForceKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() {
        return "CalcSplinePairForce";
    }
    CalcSplinePairForceKernel(std::string name, const OpenMM::Platform& platform) : OpenMM::KernelImpl(name, platform) {
    }
    virtual void initialize(const OpenMM::System& system, const SplinePairForce& force) = 0;
    /**
     * @return the energy in kJ/mol, if includeEnergy
     */
    virtual double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) = 0;
    /**
     * Take over the coefficients and the particle types.
     */
    virtual void copyParametersToContext(OpenMM::ContextImpl& context, const SplinePairForce& force) = 0;
    /**
     * Sums over the pairs of one configuration. The request says what to compute. Results are written over basis and
     * virial (numTypePairs * numCoefficients numbers each) and counts (a vector of numBins for each histogram), which
     * have the right sizes already.
     */
    virtual void computeSums(OpenMM::ContextImpl& context, const PairConfiguration& configuration, const PairSums& request,
            double* basis, double* virial, std::vector<std::vector<long long> >& counts) = 0;
    /**
     * The products of SplinePairForce::computeProducts() for one configuration. Either result may be null.
     */
    virtual void computeProducts(OpenMM::ContextImpl& context, const PairConfiguration& configuration,
            const OpenMM::Vec3* vectors, OpenMM::Vec3* hessianProduct, double* parameterProduct) = 0;
    /**
     * Whether the neighbor lists that OpenMM keeps for this Context, if there are any, were made anew for the last evaluation
     * of forces; false where that cannot be told.
     */
    virtual bool hasNewNeighborLists(OpenMM::ContextImpl& context) = 0;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SPLINEPAIRKERNELS_H_*/
