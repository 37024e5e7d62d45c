/*
 * Compiled once for each instruction set. Nothing of the standard library is used here: an inline function compiled for a
 * newer processor might end up serving the rest of the program.
 */
#include "CpuPairLoops.h"
#ifdef __AVX2__
    #include <immintrin.h>
#endif

using namespace DiffSim;

namespace {

// Eight numbers at a time; where registers are shorter, the compiler splits them.

typedef float Float8 __attribute__((vector_size(32)));
typedef int Int8 __attribute__((vector_size(32)));

const float FAR = 1e30f;
const Int8 LANES = {0, 1, 2, 3, 4, 5, 6, 7};

inline Float8 broadcast(float x) {
    return x-Float8{};
}

inline Float8 load(const float* from) {
    Float8 v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
}

inline Int8 load(const int* from) {
    Int8 v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
}

inline Float8 select(Int8 mask, Float8 yes, Float8 no) {
    return (Float8) ((mask & (Int8) yes) | (~mask & (Int8) no));
}

inline Float8 largest(Float8 a, Float8 b) {
#ifdef __AVX2__
    return _mm256_max_ps(a, b);
#else
    return select(a > b, a, b);
#endif
}

inline Float8 smallest(Float8 a, Float8 b) {
#ifdef __AVX2__
    return _mm256_min_ps(a, b);
#else
    return select(a < b, a, b);
#endif
}

inline Int8 toInt(Float8 a) {
    return __builtin_convertvector(a, Int8);
}

inline Float8 floor(Float8 a) {
#ifdef __AVX2__
    return _mm256_floor_ps(a);
#else
    Float8 whole = __builtin_convertvector(toInt(a), Float8);
    return whole+select(whole > a, broadcast(-1), broadcast(0));
#endif
}

inline Float8 nearest(Float8 a) {
#ifdef __AVX2__
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    return floor(a+0.5f);
#endif
}

// To about 23 bits.
inline Float8 inverseSquareRoot(Float8 a) {
#ifdef __AVX2__
    Float8 y = _mm256_rsqrt_ps(a);
    return y*(1.5f-0.5f*a*y*y);
#else
    Float8 y;
    for (int i = 0; i < 8; i++)
        y[i] = 1/__builtin_sqrtf(a[i]);
    return y;
#endif
}

inline Float8 squareRoot(Float8 a) {
#ifdef __AVX2__
    return _mm256_sqrt_ps(a);
#else
    Float8 y;
    for (int i = 0; i < 8; i++)
        y[i] = __builtin_sqrtf(a[i]);
    return y;
#endif
}

inline float sum(Float8 a) {
    return ((a[0]+a[4])+(a[1]+a[5]))+((a[2]+a[6])+(a[3]+a[7]));
}

struct Float8x4 {
    Float8 x, y, z, w;
};

#ifdef __AVX2__

inline Float8x4 transpose(__m256 r04, __m256 r15, __m256 r26, __m256 r37) {
    __m256 xy02 = _mm256_unpacklo_ps(r04, r26), zw02 = _mm256_unpackhi_ps(r04, r26);
    __m256 xy13 = _mm256_unpacklo_ps(r15, r37), zw13 = _mm256_unpackhi_ps(r15, r37);
    return {_mm256_unpacklo_ps(xy02, xy13), _mm256_unpackhi_ps(xy02, xy13), _mm256_unpacklo_ps(zw02, zw13),
            _mm256_unpackhi_ps(zw02, zw13)};
}

inline __m256 twoRows(const float* table, int low, int high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(table+4*low)), _mm_loadu_ps(table+4*high), 1);
}

// Rows of four numbers, by their indices.
inline Float8x4 gather(const float* table, const int* i) {
    return transpose(twoRows(table, i[0], i[4]), twoRows(table, i[1], i[5]), twoRows(table, i[2], i[6]), twoRows(table, i[3], i[7]));
}

// The transpose back: rows 0 and 4, 1 and 5, 2 and 6, 3 and 7.
inline void toRows(const Float8x4& v, __m256 rows[4]) {
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

inline void scatterSubtract(float* table, const int* i, const Float8x4& v) {
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

// The first count rows only.
inline void scatterAdd(double* table, const int* i, const Float8x4& v, int count) {
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

// Store the lanes of a mask one after the other; returns how many. Writes eight numbers in any case.
inline int compress(Int8 mask, Int8 values, int* to) {
    int bits = _mm256_movemask_ps((__m256) mask);
    __m256i order = _mm256_loadu_si256((const __m256i*) compression.lanes[bits]);
    _mm256_storeu_si256((__m256i*) to, _mm256_permutevar8x32_epi32((__m256i) values, order));
    return __builtin_popcount(bits);
}

#else

inline Float8x4 gather(const float* table, const int* i) {
    Float8x4 v;
    for (int k = 0; k < 8; k++) {
        const float* row = table+4*i[k];
        v.x[k] = row[0];
        v.y[k] = row[1];
        v.z[k] = row[2];
        v.w[k] = row[3];
    }
    return v;
}

inline void scatterSubtract(float* table, const int* i, const Float8x4& v) {
    for (int k = 0; k < 8; k++) {
        float* row = table+4*i[k];
        row[0] -= v.x[k];
        row[1] -= v.y[k];
        row[2] -= v.z[k];
    }
}

inline void scatterAdd(double* table, const int* i, const Float8x4& v, int count) {
    for (int k = 0; k < count; k++) {
        double* row = table+4*i[k];
        row[0] += v.x[k];
        row[1] += v.y[k];
        row[2] += v.z[k];
        row[3] += v.w[k];
    }
}

inline int compress(Int8 mask, Int8 values, int* to) {
    int n = 0;
    for (int k = 0; k < 8; k++) {
        to[n] = values[k];
        n -= mask[k];
    }
    return n;
}

#endif

// What all sums over pairs begin with: eight neighbors of a particle, and where they are in the table.

struct Center {
    int index;
    Float8 x, y, z;
    const int* firstRows;
};

struct Pairs {
    Float8 dx, dy, dz;            // r_i - r_j
    Float8 r2, inverseR;
    Float8 t;
    int rows[8];
};

inline Center center(const CpuPairModel& model, const float* positions, int i) {
    const float* p = positions+4*i;
    return {i, broadcast(p[0]), broadcast(p[1]), broadcast(p[2]), model.firstRows+(int) p[3]*model.numTypes};
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

// The distances of eight neighbors; returns their positions and types.
template <Box BOX, bool MIXTURE>
inline Float8x4 separate(Kind<BOX, MIXTURE>, const CpuPairModel& model, const Center& i, const float* positions, const int* indices,
        Pairs& pairs) {
    Float8x4 other = gather(positions, indices);
    pairs.dx = i.x-other.x;
    pairs.dy = i.y-other.y;
    pairs.dz = i.z-other.z;
    if (BOX == Rectangular) {
        pairs.dx -= nearest(pairs.dx*model.inverseBox[0])*model.box[0][0];
        pairs.dy -= nearest(pairs.dy*model.inverseBox[1])*model.box[1][1];
        pairs.dz -= nearest(pairs.dz*model.inverseBox[2])*model.box[2][2];
    }
    if (BOX == Triclinic) {
        Float8 n = nearest(pairs.dz*model.inverseBox[2]);
        pairs.dx -= n*model.box[2][0];
        pairs.dy -= n*model.box[2][1];
        pairs.dz -= n*model.box[2][2];
        n = nearest(pairs.dy*model.inverseBox[1]);
        pairs.dx -= n*model.box[1][0];
        pairs.dy -= n*model.box[1][1];
        pairs.dx -= nearest(pairs.dx*model.inverseBox[0])*model.box[0][0];
    }
    pairs.r2 = largest(pairs.dx*pairs.dx+pairs.dy*pairs.dy+pairs.dz*pairs.dz, broadcast(1e-20f));
    return other;
}

template <Box BOX, bool MIXTURE>
inline Pairs evaluate(Kind<BOX, MIXTURE> kind, const CpuPairModel& model, const Center& i, const float* positions, const int* indices) {
    Pairs pairs;
    Float8x4 other = separate(kind, model, i, positions, indices, pairs);
    pairs.inverseR = inverseSquareRoot(pairs.r2);
    Float8 knot = (pairs.r2*pairs.inverseR-model.rMin)*model.inverseSpacing;
    Float8 cell = smallest(largest(floor(knot), broadcast(-1)), broadcast(model.numKnots-1));
    pairs.t = knot-largest(cell, broadcast(0));
    Int8 rows = toInt(cell)+1;
    if (MIXTURE) {
        Int8 types = toInt(other.w);
        for (int k = 0; k < 8; k++)
            pairs.rows[k] = rows[k]+i.firstRows[types[k]];
    }
    else
        __builtin_memcpy(pairs.rows, &rows, sizeof(rows));
    return pairs;
}

inline Int8 isPair(const Pairs& pairs) {
    return pairs.r2 > 1e-20f;
}

// Calls body(i, indices, count) with eight or fewer neighbors at a time.
template <class Begin, class Body, class End>
inline void forEachBlock(const CpuPairNeighbors& neighbors, Begin begin, Body body, End end) {
    const int* indices = neighbors.indices;
    for (int i = neighbors.begin; i < neighbors.end; i++) {
        int count = neighbors.counts[i-neighbors.begin];
        begin(i);
        for (; count > 0; count -= 8, indices += 8)
            body(indices, count < 8 ? count : 8);
        end(i);
    }
}

template <bool ENERGY, class Kind>
double forces(Kind kind, const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, float* forces) {
    double energy = 0;
    Center i;
    Float8 fx, fy, fz;
    forEachBlock(neighbors, [&] (int index) {
        i = center(model, positions, index);
        fx = fy = fz = Float8{};
    }, [&] (const int* indices, int count) {
        Pairs pairs = evaluate(kind, model, i, positions, indices);
        Float8x4 a = gather(model.rows, pairs.rows);
        Float8 t = pairs.t;
        if (ENERGY) {
            Float8 u = a.x+t*(a.y+t*(a.z+t*a.w));
            energy += sum(select(LANES < count, u, Float8{}));
        }

        // Where a particle stands in for a missing neighbor of itself, dx is 0, and so is the force.

        Float8 scale = (a.y+t*(2*a.z+3*t*a.w))*pairs.inverseR*(-model.inverseSpacing);
        Float8x4 f = {scale*pairs.dx, scale*pairs.dy, scale*pairs.dz, Float8{}};
        fx += f.x;
        fy += f.y;
        fz += f.z;
        scatterSubtract(forces, indices, f);
    }, [&] (int index) {
        forces[4*index] += sum(fx);
        forces[4*index+1] += sum(fy);
        forces[4*index+2] += sum(fz);
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
        Float8 t = pairs.t, one = broadcast(1);
        if (basis != nullptr)
            scatterAdd(basis, pairs.rows, {one, t, t*t, t*t*t}, count);
        if (virial != nullptr) {
            Float8x4 other = gather(offsets, indices);
            const float* own = offsets+4*i.index;
            Float8 dot = pairs.r2-(pairs.dx*(own[0]-other.x)+pairs.dy*(own[1]-other.y)+pairs.dz*(own[2]-other.z));
            Float8 lever = select(isPair(pairs), dot*pairs.inverseR*(-model.inverseSpacing), Float8{});
            scatterAdd(virial, pairs.rows, {Float8{}, lever, lever*2*t, lever*3*t*t}, count);
        }
    }, [&] (int index) {
    });
}

template <class Kind>
void products(Kind kind, const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, const float* vectors, float* product,
        double* moments) {
    Center i;
    Float8 vx, vy, vz, px, py, pz;
    forEachBlock(neighbors, [&] (int index) {
        i = center(model, positions, index);
        vx = broadcast(vectors[4*index]);
        vy = broadcast(vectors[4*index+1]);
        vz = broadcast(vectors[4*index+2]);
        px = py = pz = Float8{};
    }, [&] (const int* indices, int count) {
        Pairs pairs = evaluate(kind, model, i, positions, indices);
        Float8x4 other = gather(vectors, indices);
        Float8 dvx = vx-other.x, dvy = vy-other.y, dvz = vz-other.z;
        Float8 t = pairs.t;
        Float8 along = (dvx*pairs.dx+dvy*pairs.dy+dvz*pairs.dz)*pairs.inverseR;
        if (product != nullptr) {
            Float8x4 a = gather(model.rows, pairs.rows);
            Float8 transverse = (a.y+t*(2*a.z+3*t*a.w))*model.inverseSpacing*pairs.inverseR;
            Float8 curvature = (2*a.z+6*t*a.w)*(model.inverseSpacing*model.inverseSpacing);
            transverse = select(isPair(pairs), transverse, Float8{});
            Float8 scale = (curvature-transverse)*along*pairs.inverseR;
            Float8x4 p = {transverse*dvx+scale*pairs.dx, transverse*dvy+scale*pairs.dy, transverse*dvz+scale*pairs.dz, Float8{}};
            px += p.x;
            py += p.y;
            pz += p.z;
            scatterSubtract(product, indices, p);
        }
        if (moments != nullptr) {
            Float8 weight = along*(-model.inverseSpacing);
            scatterAdd(moments, pairs.rows, {Float8{}, weight, weight*2*t, weight*3*t*t}, count);
        }
    }, [&] (int index) {
        if (product != nullptr) {
            product[4*index] += sum(px);
            product[4*index+1] += sum(py);
            product[4*index+2] += sum(pz);
        }
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
        Float8 r2 = select(LANES < count, pairs.r2, broadcast(FAR));
        __builtin_memcpy(squares, &r2, sizeof(r2));
        squares += 8;
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
        float cx = x[index]-run.shift[0], cy = y[index]-run.shift[1], cz = z[index]-run.shift[2];
        for (int j = begin; j < run.end; j += 8) {
            Float8 dx = cx-load(x+j), dy = cy-load(y+j), dz = cz-load(z+j);
            body(j, LANES < run.end-j, dx*dx+dy*dy+dz*dz);
        }
    }
}

class PairLoops : public CpuPairLoops {
public:
    int findNeighbors(int index, const float* x, const float* y, const float* z, const CellGrid::Run* runs, int numRuns, float cutoff,
            int* found) const {
        int count = 0;
        Float8 limit = broadcast(cutoff*cutoff);
        forEachCandidate(index, x, y, z, runs, numRuns, [&] (int j, Int8 lanes, Float8 r2) {
            count += compress(lanes & (r2 < limit), LANES+j, found+count);
        });
        return count;
    }
    int findDistances(int index, const float* x, const float* y, const float* z, const CellGrid::Run* runs, int numRuns, float rMax,
            int* found, float* squares) const {
        int count = 0;
        Float8 limit = broadcast(rMax*rMax);
        forEachCandidate(index, x, y, z, runs, numRuns, [&] (int j, Int8 lanes, Float8 r2) {
            Int8 mask = lanes & (r2 < limit);
            int begin = count;
            count += compress(mask, (Int8) r2, (int*) squares+begin);
            if (found != nullptr)
                compress(mask, LANES+j, found+begin);
        });
        return count;
    }
    void findListedDistances(const CpuPairModel& model, const CpuPairNeighbors& neighbors, const float* positions, float* squares) const {
        forKindOf(model, [&] (auto kind) {
            distances(kind, model, neighbors, positions, squares);
        });
    }
    void countUniform(int numDistances, const float* squares, float rMin, float inverseWidth, int numBins, int* counts) const {
        Float8 beyond = broadcast(numBins);
        for (int i = 0; i < numDistances; i += 8) {
            Float8 bin = floor((squareRoot(load(squares+i))-rMin)*inverseWidth);
            bin = select((LANES < numDistances-i) & (bin >= 0), smallest(bin, beyond), beyond);
            Int8 slots = 8*toInt(bin)+LANES;
            int at[8];
            __builtin_memcpy(at, &slots, sizeof(at));
            for (int k = 0; k < 8; k++)
                counts[at[k]]++;
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

#ifdef DIFFSIM_AVX2
const CpuPairLoops* DiffSim::getAvx2PairLoops() {
#ifdef __AVX2__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &loops;
#endif
    return nullptr;
}
#else
const CpuPairLoops& DiffSim::getPortablePairLoops() {
    return loops;
}
#endif
