/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_REFERENCESPLINEPAIRKERNELS_H_
#define OPENMM_DIFFSIM_REFERENCESPLINEPAIRKERNELS_H_

#include "SplinePairKernels.h"
#include "internal/SplineTable.h"
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace DiffSim {

/**
 * Double precision and a plain loop over all pairs, whatever the distance: the definition of what is correct.
 */
class ReferenceCalcSplinePairForceKernel : public CalcSplinePairForceKernel {
public:
    ReferenceCalcSplinePairForceKernel(std::string name, const OpenMM::Platform& platform) :
            CalcSplinePairForceKernel(name, platform) {
    }
    void initialize(const OpenMM::System& system, const SplinePairForce& force);
    double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy);
    void copyParametersToContext(OpenMM::ContextImpl& context, const SplinePairForce& force);
    void computeSums(OpenMM::ContextImpl& context, const PairConfiguration& configuration, const PairSums& request,
            double* basis, double* virial, std::vector<std::vector<long long> >& counts);
    void computeProducts(OpenMM::ContextImpl& context, const PairConfiguration& configuration, const OpenMM::Vec3* vectors,
            OpenMM::Vec3* hessianProduct, double* parameterProduct);
    bool hasNewNeighborLists(OpenMM::ContextImpl& context);
private:
    /** The potential of a pair at some distance. */
    struct Pair {
        int i, j;
        OpenMM::Vec3 delta; // r_i - r_j, nm
        double r;
        int row;
        double t;
    };
    template <class Function>
    void forEachPair(const PairConfiguration& configuration, Function function) const;
    template <class Function>
    void forEachInteraction(const PairConfiguration& configuration, Function function) const;
    bool periodic;
    std::unique_ptr<SplineTable> table;
    std::vector<int> types;
    std::set<std::pair<int, int> > exclusions;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_REFERENCESPLINEPAIRKERNELS_H_*/
