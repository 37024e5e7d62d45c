/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_CPUSPLINEPAIRKERNELS_H_
#define OPENMM_DIFFSIM_CPUSPLINEPAIRKERNELS_H_

#include "CpuPairList.h"
#include "SplinePairKernels.h"
#include "internal/SplineTable.h"
#include <memory>
#include <vector>

namespace DiffSim {

/**
 * Pairs in single precision, eight at a time, on all threads of the Context; sums over particles in double precision.
 */
class CpuCalcSplinePairForceKernel : public CalcSplinePairForceKernel {
public:
    CpuCalcSplinePairForceKernel(std::string name, const OpenMM::Platform& platform);
    void initialize(const OpenMM::System& system, const SplinePairForce& force);
    double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy);
    void copyParametersToContext(OpenMM::ContextImpl& context, const SplinePairForce& force);
    void computeSums(OpenMM::ContextImpl& context, const PairConfiguration& configuration, const PairSums& request,
            double* basis, double* virial, std::vector<std::vector<long long> >& counts);
    void computeProducts(OpenMM::ContextImpl& context, const PairConfiguration& configuration, const OpenMM::Vec3* vectors,
            OpenMM::Vec3* hessianProduct, double* parameterProduct);
    bool hasNewNeighborLists(OpenMM::ContextImpl& context);
private:
    typedef std::vector<SplineTable::Row> Moments;
    CpuPairModel makeModel(const OpenMM::Vec3* box) const;
    CpuPairList& findList(const PairConfiguration& configuration, OpenMM::ThreadPool& threads);
    void fillRows();
    std::vector<float> sort(const CpuPairList& list, const OpenMM::Vec3* vectors, double scale) const;
    void clearForces(const CpuPairList& list, int thread);
    void sumForces(const CpuPairList& list, OpenMM::ThreadPool& threads, OpenMM::Vec3* total) const;
    std::vector<Moments> makeMoments(int numThreads) const;
    Moments sum(const std::vector<Moments>& parts) const;
    void countPairs(const PairConfiguration& configuration, OpenMM::ThreadPool& threads, const PairHistogram& histogram,
            std::vector<long long>& counts);
    void countInCells(const CellGrid& grid, const CpuCoordinates& coordinates, const PairHistogram& histogram, bool isUniformCount,
            int thread, int numThreads, std::vector<long long>& counts) const;
    const CpuPairLoops& loops;
    bool periodic, hasExclusions;
    std::unique_ptr<SplineTable> table;
    std::vector<float> rows;
    std::vector<int> types;
    std::vector<std::vector<int> > exclusions;
    std::vector<std::vector<float> > forces; // of each thread, in the order of the list
    std::unique_ptr<CpuPairList> present, stored; // for the MD, and for other configurations that derivatives are taken at
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_CPUSPLINEPAIRKERNELS_H_*/
