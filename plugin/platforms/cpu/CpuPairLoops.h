/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_CPUPAIRLOOPS_H_
#define OPENMM_DIFFSIM_CPUPAIRLOOPS_H_

#include "internal/CellGrid.h"

namespace DiffSim {

/**
 * The potential and the box, as the loops over pairs want them.
 */
struct CpuPairModel {
    const float* rows;            // 4 numbers for each row of the SplineTable
    const int* firstRows;         // numTypes * numTypes
    int numTypes, numKnots;
    float rMin, inverseSpacing;
    bool periodic, triclinic;
    float box[3][3], inverseBox[3];
};

/**
 * Particles in the order of their cells, and for each the neighbors that follow it in that order. The list of a particle is
 * padded with the particle itself to a multiple of the width of the loops that it is for.
 */
struct CpuPairNeighbors {
    int begin, end;               // the particles of this list
    const int* counts;            // neighbors of each, not counting the padding
    const int* indices;           // of one after the other, padding included
};

/**
 * The loops over pairs that take the time, all on plain memory. There is one implementation for each instruction set.
 */
class CpuPairLoops {
public:
    /** No loops are wider. */
    static const int MAX_WIDTH = 8;
    virtual ~CpuPairLoops() {
    }
    /** How many pairs are computed at a time. */
    virtual int getWidth() const = 0;
    /**
     * Find the particles after index, in some runs, that are closer than a cutoff. There has to be room for all that the
     * runs hold and MAX_WIDTH more.
     *
     * @return how many were found
     */
    virtual int findNeighbors(int index, const float* x, const float* y, const float* z, const CellGrid::Run* runs, int numRuns,
            float cutoff, int* found) const = 0;
    /**
     * Subtract energies' slopes from the forces.
     *
     * @param positions   x, y, z and the type of each particle
     * @param forces      4 numbers for each particle, to be added to
     * @return the energy, or 0 unless it is asked for
     */
    virtual double addForces(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, bool includeEnergy,
            float* forces) const = 0;
    /**
     * Add the moments of SplineTable of each pair, with a weight of 1 for the basis sums, and for the virial of what stands
     * before dB_k/dr. Either may be null.
     *
     * @param offsets   4 numbers for each particle, where it is in its molecule; needed for the virial
     */
    virtual void addSums(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, const float* offsets,
            double* basis, double* virial) const = 0;
    /**
     * Add to the products of the Hessian with a vector and of the vector with dF/dc, the second as moments. Either may be null.
     *
     * @param vectors   4 numbers for each particle, the last 0
     * @param product   4 numbers for each particle
     */
    virtual void addProducts(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, const float* vectors,
            float* product, double* moments) const = 0;
    /**
     * Like findNeighbors(), and store the squares of the distances. found may be null.
     */
    virtual int findDistances(int index, const float* x, const float* y, const float* z, const CellGrid::Run* runs, int numRuns,
            float rMax, int* found, float* squares) const = 0;
    /**
     * Find the squares of the distances between all neighbors; those of the padding are beyond any cutoff.
     */
    virtual void findListedDistances(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions,
            float* squares) const = 0;
    /**
     * Count distances in uniform bins.
     *
     * @param squares   of the distances, with room for MAX_WIDTH more
     * @param counts    MAX_WIDTH interleaved copies of numBins+1 counts, the last for distances outside of all bins
     */
    virtual void countUniform(int numDistances, const float* squares, float rMin, float inverseWidth, int numBins, int* counts) const = 0;
};

/** Four pairs at a time, on any processor that OpenMM's CPU platform runs on. */
const CpuPairLoops& getVec4PairLoops();
/** Eight at a time; null where the compiler or the processor has no such instructions. */
const CpuPairLoops* getAvx2PairLoops();

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_CPUPAIRLOOPS_H_*/
