/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELS_H_
#define OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELS_H_

#include "DeviceKernel.h"
#include "SplinePairKernels.h"
#include "internal/CellGrid.h"
#include "internal/SplineTable.h"
#include "openmm/common/ComputeArray.h"
#include "openmm/common/ComputeContext.h"
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace DiffSim {

/**
 * For OpenCL and CUDA. Energies and forces are part of OpenMM's own nonbonded kernel. Derivatives are computed at positions
 * that are given, so particles are sorted into cells on the host, and each thread goes through the neighbors of its own.
 * Terms of single pairs have the precision of the platform. Sums over pairs are in fixed point, 64 bits wide.
 */
class CommonCalcSplinePairForceKernel : public CalcSplinePairForceKernel {
public:
    CommonCalcSplinePairForceKernel(std::string name, const OpenMM::Platform& platform, OpenMM::ComputeContext& cc) :
            CalcSplinePairForceKernel(name, platform), cc(cc) {
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
    class ForceInfo;
    void uploadTable();
    void setTypes(const std::vector<int>& types);
    void addInteraction(const OpenMM::System& system, const SplinePairForce& force, const std::vector<std::vector<int> >& excluded);
    void uploadExclusions(const std::vector<std::vector<int> >& excluded);
    void createKernels();
    template <class T>
    void upload(OpenMM::ComputeArray& array, const std::vector<T>& values);
    void uploadMixed(OpenMM::ComputeArray& array, const std::vector<double>& values);
    void uploadSorted(OpenMM::ComputeArray& array, const std::function<OpenMM::Vec3 (int)>& vectorOf,
            const std::function<double (int)>& labelOf = [] (int) { return 0.0; });
    void sortParticles(const PairConfiguration& configuration, const std::vector<int>& selected, double range,
            const std::vector<int>& labels);
    double getLargestScale(double largestTerm) const;
    void prepareSums(OpenMM::ComputeArray& array, int numSums);
    std::vector<long long> downloadSums(OpenMM::ComputeArray& array, int numSums);
    void downloadMoments(OpenMM::ComputeArray& array, double scale, double* coefficients);
    void computeHistogram(const PairConfiguration& configuration, const PairHistogram& histogram, std::vector<long long>& counts);
    int getNumMoments() const {
        return 4*table->getNumTypes()*table->getNumTypes()*table->getRowsPerPair();
    }
    int getMixedSize() const {
        return cc.getUseDoublePrecision() || cc.getUseMixedPrecision() ? sizeof(double) : sizeof(float);
    }
    OpenMM::ComputeContext& cc;
    ForceInfo* info; // belongs to cc
    bool periodic, hasExclusions;
    std::unique_ptr<SplineTable> table;
    std::vector<int> types, interacting; // interacting are the particles of type 0 or more
    std::vector<std::vector<int> > excludedPairs;
    CellGrid grid;
    OpenMM::ComputeArray rows, typesOnDevice, exclusionStarts, exclusions;
    OpenMM::ComputeArray positions, particleCells, cellStarts, order, offsets, vectors, products, groups, edges;
    OpenMM::ComputeArray basisSums, virialSums, histogramSums;
    DeviceKernel sumsKernel, productsKernel, histogramKernel;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELS_H_*/
