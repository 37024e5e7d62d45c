/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "openmm/internal/vectorize.h"
#include <cstdint>

namespace {

typedef fvec4 Floats;
typedef ivec4 Ints;
const int WIDTH = 4;

struct Rows {
    Floats x, y, z, w;
};

inline Floats laneNumbers() {
    return Floats(0.0f, 1.0f, 2.0f, 3.0f);
}

inline Rows gather(const float* table, const int* i) {
    Rows v = {Floats(table+4*i[0]), Floats(table+4*i[1]), Floats(table+4*i[2]), Floats(table+4*i[3])};
    transpose(v.x, v.y, v.z, v.w);
    return v;
}

inline void scatterSubtract(float* table, const int* i, Rows v) {
    transpose(v.x, v.y, v.z, v.w);
    Floats rows[] = {v.x, v.y, v.z, v.w};
    for (int k = 0; k < WIDTH; k++) {
        float* at = table+4*i[k];
        (Floats(at)-rows[k]).store(at);
    }
}

inline void scatterAdd(double* table, const int* i, Rows v, int count) {
    transpose(v.x, v.y, v.z, v.w);
    Floats rows[] = {v.x, v.y, v.z, v.w};
    for (int k = 0; k < count; k++) {
        float row[4];
        rows[k].store(row);
        double* at = table+4*i[k];
        for (int m = 0; m < 4; m++)
            at[m] += row[m];
    }
}

inline int compress(Floats mask, int first, int* to) {
    float isSet[WIDTH];
    blendZero(Floats(1.0f), mask).store(isSet);
    int count = 0;
    for (int k = 0; k < WIDTH; k++) {
        to[count] = first+k;
        count += (int) isSet[k];
    }
    return count;
}

inline int compress(Floats mask, Floats values, float* to) {
    float isSet[WIDTH], all[WIDTH];
    blendZero(Floats(1.0f), mask).store(isSet);
    values.store(all);
    int count = 0;
    for (int k = 0; k < WIDTH; k++) {
        to[count] = all[k];
        count += (int) isSet[k];
    }
    return count;
}

} // namespace

#include "CpuPairLoopsImpl.h"

const CpuPairLoops& DiffSim::getVec4PairLoops() {
    return loops;
}
