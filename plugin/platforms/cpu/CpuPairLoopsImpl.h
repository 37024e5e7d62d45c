/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_CPUPAIRLOOPSIMPL_H_
#define OPENMM_DIFFSIM_CPUPAIRLOOPSIMPL_H_

/*
 * The loops over pairs, for vectors as OpenMM's vectorize*.h have them. A file includes this once for one instruction set, after
 * it has defined, in its unnamed namespace, what these headers leave open:
 *
 *     typedef ... Floats, Ints;                                     the vectors
 *     const int WIDTH;                                              how many numbers they have
 *     struct Rows {Floats x, y, z, w;};
 *     Floats laneNumbers();                                         0, 1, 2, ...
 *     Rows gather(const float* table, const int* i);                rows of four numbers, by their indices
 *     void scatterSubtract(float* table, const int* i, Rows v);
 *     void scatterAdd(double* table, const int* i, Rows v, int count);      the first count rows only
 *     int compress(Floats mask, int first, int* to);                first+lane where the mask is set; returns how many
 *     int compress(Floats mask, Floats values, float* to);          the values there; both write WIDTH numbers in any case
 *
 * Nothing of the standard library is used here: an inline function compiled for a newer processor might end up serving the rest
 * of the program.
 */
#include "CpuPairLoops.h"

using namespace DiffSim;

namespace {

const float FAR = 1e30f;

inline Floats isBelow(int count) {
    return laneNumbers() < Floats((float) count);
}

// What all sums over pairs begin with: WIDTH neighbors of a particle, and where they are in the table.

struct Center {
    int index;
    Floats x, y, z;
    const int* firstRows;
};

struct Pairs {
    Floats dx, dy, dz;            // r_i - r_j
    Floats r2, inverseR;
    Floats t;
    int rows[WIDTH];
};

// As whole numbers.
inline void store(Floats a, int* to) {
    Ints whole = a;
    whole.store(to);
}

inline void addTo(float* xyz, Floats x, Floats y, Floats z) {
    (fvec4(xyz)+reduceToVec3(x, y, z)).store(xyz);
}

inline Center center(const CpuPairModel& model, const float* positions, int i) {
    const float* p = positions+4*i;
    return {i, Floats(p[0]), Floats(p[1]), Floats(p[2]), model.firstRows+(int) p[3]*model.numTypes};
}

enum Box {None, Rectangular, Triclinic};

/** What the compiler should know of a model. */
template <Box BOX, bool MIXTURE>
struct Kind {
};

// Calls loop(kind) with the kind of a model.
template <class Loop>
inline auto forKindOf(const CpuPairModel& model, Loop loop) {
    bool mixture = (model.numTypes > 1);
    if (!model.periodic)
        return mixture ? loop(Kind<None, true>()) : loop(Kind<None, false>());
    if (!model.triclinic)
        return mixture ? loop(Kind<Rectangular, true>()) : loop(Kind<Rectangular, false>());
    return mixture ? loop(Kind<Triclinic, true>()) : loop(Kind<Triclinic, false>());
}

// The distances of WIDTH neighbors; returns their positions and types.
template <Box BOX, bool MIXTURE>
inline Rows separate(Kind<BOX, MIXTURE>, const CpuPairModel& model, const Center& i, const float* positions, const int* indices,
        Pairs& pairs) {
    Rows other = gather(positions, indices);
    pairs.dx = i.x-other.x;
    pairs.dy = i.y-other.y;
    pairs.dz = i.z-other.z;
    if (BOX == Rectangular) {
        pairs.dx -= round(pairs.dx*model.inverseBox[0])*model.box[0][0];
        pairs.dy -= round(pairs.dy*model.inverseBox[1])*model.box[1][1];
        pairs.dz -= round(pairs.dz*model.inverseBox[2])*model.box[2][2];
    }
    if (BOX == Triclinic) {
        Floats n = round(pairs.dz*model.inverseBox[2]);
        pairs.dx -= n*model.box[2][0];
        pairs.dy -= n*model.box[2][1];
        pairs.dz -= n*model.box[2][2];
        n = round(pairs.dy*model.inverseBox[1]);
        pairs.dx -= n*model.box[1][0];
        pairs.dy -= n*model.box[1][1];
        pairs.dx -= round(pairs.dx*model.inverseBox[0])*model.box[0][0];
    }
    pairs.r2 = max(pairs.dx*pairs.dx+pairs.dy*pairs.dy+pairs.dz*pairs.dz, Floats(1e-20f));
    return other;
}

template <Box BOX, bool MIXTURE>
inline Pairs evaluate(Kind<BOX, MIXTURE> kind, const CpuPairModel& model, const Center& i, const float* positions, const int* indices) {
    Pairs pairs;
    Rows other = separate(kind, model, i, positions, indices, pairs);
    pairs.inverseR = rsqrt(pairs.r2);
    Floats knot = (pairs.r2*pairs.inverseR-model.rMin)*model.inverseSpacing;
    Floats cell = min(max(floor(knot), Floats(-1.0f)), Floats((float) (model.numKnots-1)));
    pairs.t = knot-max(cell, Floats(0.0f));
    store(cell+1.0f, pairs.rows);
    if (MIXTURE) {
        int types[WIDTH];
        store(other.w, types);
        for (int k = 0; k < WIDTH; k++)
            pairs.rows[k] += i.firstRows[types[k]];
    }
    return pairs;
}

inline Floats isPair(const Pairs& pairs) {
    return pairs.r2 > Floats(1e-20f);
}

// Calls body(i, indices, count) with WIDTH or fewer neighbors at a time.
template <class Begin, class Body, class End>
inline void forEachBlock(const CpuPairNeighbors& neighbors, Begin begin, Body body, End end) {
    const int* indices = neighbors.indices;
    for (int i = neighbors.begin; i < neighbors.end; i++) {
        int count = neighbors.counts[i-neighbors.begin];
        begin(i);
        for (; count > 0; count -= WIDTH, indices += WIDTH)
            body(indices, count < WIDTH ? count : WIDTH);
        end(i);
    }
}

template <bool ENERGY, class Kind>
double forces(Kind kind, const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, float* forces) {
    double energy = 0;
    Center i;
    Floats fx, fy, fz;
    forEachBlock(neighbors, [&] (int index) {
        i = center(model, positions, index);
        fx = fy = fz = Floats(0.0f);
    }, [&] (const int* indices, int count) {
        Pairs pairs = evaluate(kind, model, i, positions, indices);
        Rows a = gather(model.rows, pairs.rows);
        Floats t = pairs.t;
        if (ENERGY) {
            Floats u = a.x+t*(a.y+t*(a.z+t*a.w));
            energy += reduceAdd(blendZero(u, isBelow(count)));
        }

        // Where a particle stands in for a missing neighbor of itself, dx is 0, and so is the force.

        Floats scale = (a.y+t*(2.0f*a.z+3.0f*t*a.w))*pairs.inverseR*(-model.inverseSpacing);
        Rows f = {scale*pairs.dx, scale*pairs.dy, scale*pairs.dz, Floats(0.0f)};
        fx += f.x;
        fy += f.y;
        fz += f.z;
        scatterSubtract(forces, indices, f);
    }, [&] (int index) {
        addTo(forces+4*index, fx, fy, fz);
    });
    return energy;
}

template <class Kind>
void sums(Kind kind, const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, const float* offsets, double* basis,
        double* virial) {
    Center i;
    forEachBlock(neighbors, [&] (int index) {
        i = center(model, positions, index);
    }, [&] (const int* indices, int count) {
        Pairs pairs = evaluate(kind, model, i, positions, indices);
        Floats t = pairs.t;
        if (basis != nullptr)
            scatterAdd(basis, pairs.rows, {Floats(1.0f), t, t*t, t*t*t}, count);
        if (virial != nullptr) {
            Rows other = gather(offsets, indices);
            const float* own = offsets+4*i.index;
            Floats dot = pairs.r2-(pairs.dx*(Floats(own[0])-other.x)+pairs.dy*(Floats(own[1])-other.y)+pairs.dz*(Floats(own[2])-other.z));
            Floats lever = blendZero(dot*pairs.inverseR*(-model.inverseSpacing), isPair(pairs));
            scatterAdd(virial, pairs.rows, {Floats(0.0f), lever, lever*2.0f*t, lever*3.0f*t*t}, count);
        }
    }, [&] (int index) {
    });
}

template <class Kind>
void products(Kind kind, const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, const float* vectors, float* product,
        double* moments) {
    Center i;
    Floats vx, vy, vz, px, py, pz;
    forEachBlock(neighbors, [&] (int index) {
        i = center(model, positions, index);
        vx = Floats(vectors[4*index]);
        vy = Floats(vectors[4*index+1]);
        vz = Floats(vectors[4*index+2]);
        px = py = pz = Floats(0.0f);
    }, [&] (const int* indices, int count) {
        Pairs pairs = evaluate(kind, model, i, positions, indices);
        Rows other = gather(vectors, indices);
        Floats dvx = vx-other.x, dvy = vy-other.y, dvz = vz-other.z;
        Floats t = pairs.t;
        Floats along = (dvx*pairs.dx+dvy*pairs.dy+dvz*pairs.dz)*pairs.inverseR;
        if (product != nullptr) {
            Rows a = gather(model.rows, pairs.rows);
            Floats transverse = (a.y+t*(2.0f*a.z+3.0f*t*a.w))*model.inverseSpacing*pairs.inverseR;
            Floats curvature = (2.0f*a.z+6.0f*t*a.w)*(model.inverseSpacing*model.inverseSpacing);
            transverse = blendZero(transverse, isPair(pairs));
            Floats scale = (curvature-transverse)*along*pairs.inverseR;
            Rows p = {transverse*dvx+scale*pairs.dx, transverse*dvy+scale*pairs.dy, transverse*dvz+scale*pairs.dz, Floats(0.0f)};
            px += p.x;
            py += p.y;
            pz += p.z;
            scatterSubtract(product, indices, p);
        }
        if (moments != nullptr) {
            Floats weight = along*(-model.inverseSpacing);
            scatterAdd(moments, pairs.rows, {Floats(0.0f), weight, weight*2.0f*t, weight*3.0f*t*t}, count);
        }
    }, [&] (int index) {
        if (product != nullptr)
            addTo(product+4*index, px, py, pz);
    });
}

template <class Kind>
void distances(Kind kind, const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, float* squares) {
    Center i;
    forEachBlock(neighbors, [&] (int index) {
        i = center(model, positions, index);
    }, [&] (const int* indices, int count) {
        Pairs pairs;
        separate(kind, model, i, positions, indices, pairs);
        blend(Floats(FAR), pairs.r2, isBelow(count)).store(squares);
        squares += WIDTH;
    }, [&] (int index) {
    });
}

// Calls body(first index, lanes that count, squares of distances) for all candidates.
template <class Body>
inline void forEachCandidate(int index, const float* x, const float* y, const float* z, const CellGrid::Run* runs, int numRuns, Body body) {
    for (int k = 0; k < numRuns; k++) {
        const CellGrid::Run& run = runs[k];
        int begin = run.begin > index ? run.begin : index+1;
        if (begin >= run.end)
            continue;
        Floats cx = x[index]-run.shift[0], cy = y[index]-run.shift[1], cz = z[index]-run.shift[2];
        for (int j = begin; j < run.end; j += WIDTH) {
            Floats dx = cx-Floats(x+j), dy = cy-Floats(y+j), dz = cz-Floats(z+j);
            body(j, isBelow(run.end-j), dx*dx+dy*dy+dz*dz);
        }
    }
}

class PairLoops : public CpuPairLoops {
public:
    int getWidth() const {
        return WIDTH;
    }
    int findNeighbors(int index, const float* x, const float* y, const float* z, const CellGrid::Run* runs, int numRuns, float cutoff,
            int* found) const {
        int count = 0;
        Floats limit = cutoff*cutoff;
        forEachCandidate(index, x, y, z, runs, numRuns, [&] (int j, Floats lanes, Floats r2) {
            count += compress(lanes & (r2 < limit), j, found+count);
        });
        return count;
    }
    int findDistances(int index, const float* x, const float* y, const float* z, const CellGrid::Run* runs, int numRuns, float rMax,
            int* found, float* squares) const {
        int count = 0;
        Floats limit = rMax*rMax;
        forEachCandidate(index, x, y, z, runs, numRuns, [&] (int j, Floats lanes, Floats r2) {
            Floats mask = lanes & (r2 < limit);
            int begin = count;
            count += compress(mask, r2, squares+begin);
            if (found != nullptr)
                compress(mask, j, found+begin);
        });
        return count;
    }
    void findListedDistances(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, float* squares) const {
        forKindOf(model, [&] (auto kind) {
            distances(kind, model, neighbors, positions, squares);
        });
    }
    void countUniform(int numDistances, const float* squares, float rMin, float inverseWidth, int numBins, int* counts) const {
        Floats beyond = (float) numBins;
        for (int i = 0; i < numDistances; i += WIDTH) {
            Floats bin = floor((sqrt(Floats(squares+i))-rMin)*inverseWidth);
            bin = blend(beyond, min(bin, beyond), isBelow(numDistances-i) & (bin >= Floats(0.0f)));
            int at[WIDTH];
            store(bin, at);
            for (int k = 0; k < WIDTH; k++)
                counts[MAX_WIDTH*at[k]+k]++;
        }
    }
    double addForces(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, bool includeEnergy,
            float* f) const {
        return forKindOf(model, [&] (auto kind) {
            return includeEnergy ? forces<true>(kind, model, neighbors, positions, f) : forces<false>(kind, model, neighbors, positions, f);
        });
    }
    void addSums(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, const float* offsets,
            double* basis, double* virial) const {
        forKindOf(model, [&] (auto kind) {
            sums(kind, model, neighbors, positions, offsets, basis, virial);
        });
    }
    void addProducts(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, const float* vectors,
            float* product, double* moments) const {
        forKindOf(model, [&] (auto kind) {
            products(kind, model, neighbors, positions, vectors, product, moments);
        });
    }
} loops;

} // namespace

#endif /*OPENMM_DIFFSIM_CPUPAIRLOOPSIMPL_H_*/
