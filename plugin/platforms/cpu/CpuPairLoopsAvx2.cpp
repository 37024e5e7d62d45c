/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "CpuPairLoops.h"

#ifdef __AVX2__

#include "openmm/internal/vectorizeAvx2.h"

namespace {

typedef fvec8 Floats;
typedef ivec8 Ints;
const int WIDTH = 8;

struct Rows {
    Floats x, y, z, w;
};

const float LANES[] = {0, 1, 2, 3, 4, 5, 6, 7};

inline Floats laneNumbers() {
    return Floats(LANES);
}

inline __m256 twoRows(const float* table, int low, int high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(table+4*low)), _mm_loadu_ps(table+4*high), 1);
}

inline Rows gather(const float* table, const int* i) {
    __m256 r04 = twoRows(table, i[0], i[4]), r15 = twoRows(table, i[1], i[5]);
    __m256 r26 = twoRows(table, i[2], i[6]), r37 = twoRows(table, i[3], i[7]);
    __m256 xy02 = _mm256_unpacklo_ps(r04, r26), zw02 = _mm256_unpackhi_ps(r04, r26);
    __m256 xy13 = _mm256_unpacklo_ps(r15, r37), zw13 = _mm256_unpackhi_ps(r15, r37);
    return {_mm256_unpacklo_ps(xy02, xy13), _mm256_unpackhi_ps(xy02, xy13), _mm256_unpacklo_ps(zw02, zw13),
            _mm256_unpackhi_ps(zw02, zw13)};
}

// The transpose back: rows 0 and 4, 1 and 5, 2 and 6, 3 and 7.
inline void toRows(const Rows& v, __m256 rows[4]) {
    __m256 xz01 = _mm256_unpacklo_ps(v.x, v.z), xz23 = _mm256_unpackhi_ps(v.x, v.z);
    __m256 yw01 = _mm256_unpacklo_ps(v.y, v.w), yw23 = _mm256_unpackhi_ps(v.y, v.w);
    rows[0] = _mm256_unpacklo_ps(xz01, yw01);
    rows[1] = _mm256_unpackhi_ps(xz01, yw01);
    rows[2] = _mm256_unpacklo_ps(xz23, yw23);
    rows[3] = _mm256_unpackhi_ps(xz23, yw23);
}

inline void subtractAt(float* table, int index, __m128 row) {
    float* at = table+4*index;
    _mm_storeu_ps(at, _mm_sub_ps(_mm_loadu_ps(at), row));
}

inline void scatterSubtract(float* table, const int* i, const Rows& v) {
    __m256 rows[4];
    toRows(v, rows);
    for (int k = 0; k < 4; k++) {
        subtractAt(table, i[k], _mm256_castps256_ps128(rows[k]));
        subtractAt(table, i[k+4], _mm256_extractf128_ps(rows[k], 1));
    }
}

inline void addAt(double* table, int index, __m128 row) {
    double* at = table+4*index;
    _mm256_storeu_pd(at, _mm256_add_pd(_mm256_loadu_pd(at), _mm256_cvtps_pd(row)));
}

inline void scatterAdd(double* table, const int* i, const Rows& v, int count) {
    __m256 rows[4];
    toRows(v, rows);
    if (count == 8) {
        for (int k = 0; k < 4; k++) {
            addAt(table, i[k], _mm256_castps256_ps128(rows[k]));
            addAt(table, i[k+4], _mm256_extractf128_ps(rows[k], 1));
        }
        return;
    }
    for (int k = 0; k < count; k++)
        addAt(table, i[k], k < 4 ? _mm256_castps256_ps128(rows[k]) : _mm256_extractf128_ps(rows[k-4], 1));
}

struct Compression {
    int lanes[256][8];
};

// Made by the compiler, so that no code of this file runs before it is asked for.
constexpr Compression makeCompression() {
    Compression c = {};
    for (int mask = 0; mask < 256; mask++) {
        int n = 0;
        for (int lane = 0; lane < 8; lane++)
            if (mask & (1<<lane))
                c.lanes[mask][n++] = lane;
    }
    return c;
}

constexpr Compression compression = makeCompression();

inline __m256i findOrder(int bits) {
    return _mm256_loadu_si256((const __m256i*) compression.lanes[bits]);
}

inline int compress(Floats mask, int first, int* to) {
    int bits = _mm256_movemask_ps(mask);
    _mm256_storeu_si256((__m256i*) to, _mm256_add_epi32(findOrder(bits), _mm256_set1_epi32(first)));
    return _mm_popcnt_u32(bits);
}

inline int compress(Floats mask, Floats values, float* to) {
    int bits = _mm256_movemask_ps(mask);
    _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(values, findOrder(bits)));
    return _mm_popcnt_u32(bits);
}

} // namespace

#include "CpuPairLoopsImpl.h"

const CpuPairLoops* DiffSim::getAvx2PairLoops() {
    return isAvx2Supported() ? &loops : nullptr;
}

#else

const DiffSim::CpuPairLoops* DiffSim::getAvx2PairLoops() {
    return nullptr;
}

#endif
