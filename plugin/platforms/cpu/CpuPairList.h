/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_CPUPAIRLIST_H_
#define OPENMM_DIFFSIM_CPUPAIRLIST_H_

#include "CpuPairLoops.h"
#include "SplinePairKernels.h"
#include "internal/CellGrid.h"
#include "openmm/Vec3.h"
#include "openmm/internal/ThreadPool.h"
#include <functional>
#include <vector>

namespace DiffSim {

/** Runs a function once for each thread: on the pool, or, with a single thread, at once. */
void forEachThread(OpenMM::ThreadPool& threads, const std::function<void (int)>& function);

/** Sorted points as three arrays that may be read a little beyond their ends. */
struct CpuCoordinates {
    std::vector<float> x, y, z;
    void assign(const std::vector<OpenMM::Vec3>& points);
};

/**
 * The pairs of particles that interact, by a neighbor list that stays good while particles move little.
 */
class CpuPairList {
public:
    /**
     * @param types        of each particle, -1 for those that do not interact
     * @param exclusions   for each particle, those with which it does not interact
     */
    CpuPairList(const CpuPairLoops& loops, double cutoff, bool periodic, const std::vector<int>& types,
            const std::vector<std::vector<int> >& exclusions);
    /** Forget the list, as after a change of types. */
    void invalidate() {
        valid = false;
    }
    /** Take over new positions if the list is good for them. */
    bool tryUpdate(const PairConfiguration& configuration);
    /** Take over new positions; make a new list where the old one is not good for them. */
    void update(const PairConfiguration& configuration, OpenMM::ThreadPool& threads);
    /** The particles that interact, in the order of the list. */
    const std::vector<int>& getOrder() const {
        return grid.getOrder();
    }
    int getNumParticles() const {
        return grid.getOrder().size();
    }
    /** x, y, z and the type of each, in the order of the list. */
    const float* getPositions() const {
        return positions.data();
    }
    /** Each thread's share. */
    CpuPairNeighbors getNeighbors(int thread) const {
        const Part& part = parts[thread];
        return {part.begin, part.end, part.counts.data(), part.indices.data()};
    }
    /** How many indices a thread's share has, padding included. */
    int getNumIndices(int thread) const {
        return parts[thread].numIndices;
    }
private:
    struct Part {
        int begin, end, numIndices;
        std::vector<int> counts, indices;
    };
    void build(const PairConfiguration& configuration, OpenMM::ThreadPool& threads);
    void share(int count, int numThreads);
    void buildPart(Part& part);
    int removeExcluded(int particle, int* neighbors, int count) const;
    const CpuPairLoops& loops;
    double cutoff, padding;
    bool periodic, valid;
    const std::vector<int>& types;
    const std::vector<std::vector<int> >& exclusions;
    OpenMM::Vec3 box[3];
    CellGrid grid;
    CpuCoordinates coordinates;
    std::vector<OpenMM::Vec3> images;      // what to subtract from a position to get to where it was sorted
    std::vector<float> positions;
    std::vector<Part> parts;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_CPUPAIRLIST_H_*/
