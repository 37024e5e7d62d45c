/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#define SPLINE_ARGUMENTS CELL_ARGUMENTS, GLOBAL const int* RESTRICT order, GLOBAL const int* RESTRICT exclusionStarts, \
        GLOBAL const int* RESTRICT exclusions

/**
 * The lists of exclusions are those of the particles before they were sorted.
 */
DEVICE bool isExcluded(int particle1, int particle2, GLOBAL const int* RESTRICT exclusionStarts, GLOBAL const int* RESTRICT exclusions) {
    for (int k = exclusionStarts[particle1]; k < exclusionStarts[particle1+1]; k++)
        if (exclusions[k] == particle2)
            return true;
    return false;
}

#define PAIR_IS_EXCLUDED (HAS_EXCLUSIONS && isExcluded(order[i], order[j], exclusionStarts, exclusions))

/**
 * The row of the table in which a distance lies, and where in it.
 */
DEVICE int findRow(real r, mixed type1, mixed type2, real* t) {
    const real x = r*INVERSE_SPACING+FIRST_X;
    const int row = max((int) x, 0);
    *t = x-row;
    return ((int) type1*NUM_TYPES+(int) type2)*ROWS_PER_PAIR+row;
}

/**
 * Add the derivatives of 1, t, t^2 and t^3, times a weight, to the moments of a row. Row 0 is linear, and far down in it
 * high powers would overflow.
 */
DEVICE void addSlopeMoments(GLOBAL mm_ulong* RESTRICT moments, int row, real t, mixed weight) {
    addFixedPoint(&moments[4*row+1], weight);
    if (row%ROWS_PER_PAIR > 0) {
        addFixedPoint(&moments[4*row+2], weight*2*t);
        addFixedPoint(&moments[4*row+3], weight*3*t*t);
    }
}

/**
 * Moments of each row of the table over all pairs: of u for the basis sums, and of the virial -u'(r) (delta . D)/r, where
 * D is the vector between the centers of the two molecules.
 */
KERNEL void computeSums(SPLINE_ARGUMENTS, GLOBAL const mixed4* RESTRICT offsets, int hasOffsets, GLOBAL mm_ulong* RESTRICT basis,
        GLOBAL mm_ulong* RESTRICT virial, int includeBasis, int includeVirial, int numReplicas, mixed basisScale, mixed virialScale) {
    const int firstMoment = (GROUP_ID%numReplicas)*NUM_MOMENTS;
    for (int i = GLOBAL_ID; i < numParticles; i += GLOBAL_SIZE) {
        BEGIN_NEIGHBORS(i, i+1)
            if (!PAIR_IS_EXCLUDED) {
                const real r = SQRT((real) r2);
                real t;
                const int row = findRow(r, position1.w, position2.w, &t);
                if (includeBasis) {
                    GLOBAL mm_ulong* moments = &basis[firstMoment];
                    addFixedPoint(&moments[4*row], basisScale);
                    addFixedPoint(&moments[4*row+1], basisScale*t);
                    if (row%ROWS_PER_PAIR > 0) {
                        addFixedPoint(&moments[4*row+2], basisScale*t*t);
                        addFixedPoint(&moments[4*row+3], basisScale*t*t*t);
                    }
                }
                if (includeVirial && r > 0) {
                    mixed lever = r2;
                    if (hasOffsets) {
                        const mixed4 relative = offsets[i]-offsets[j];
                        lever -= delta.x*relative.x+delta.y*relative.y+delta.z*relative.z;
                    }
                    addSlopeMoments(&virial[firstMoment], row, t, -virialScale*lever/r);
                }
            }
        END_NEIGHBORS
    }
}

/**
 * The product of the Hessian with vectors, each thread that of its own particles, and moments of the product of the
 * vectors with dF/dc.
 */
KERNEL void computeProducts(SPLINE_ARGUMENTS, GLOBAL const real4* RESTRICT table, GLOBAL const mixed4* RESTRICT vectors,
        GLOBAL mixed4* RESTRICT hessianProduct, GLOBAL mm_ulong* RESTRICT parameterMoments, int includeHessian, int includeParameters,
        int numReplicas, mixed scale) {
    GLOBAL mm_ulong* moments = &parameterMoments[(GROUP_ID%numReplicas)*NUM_MOMENTS];
    for (int i = GLOBAL_ID; i < numParticles; i += GLOBAL_SIZE) {
        const mixed4 vector1 = vectors[i];
        mixed sumX = 0, sumY = 0, sumZ = 0;
        BEGIN_NEIGHBORS(i, includeHessian ? 0 : i+1)
            const real r = SQRT((real) r2);
            if (r > 0 && !PAIR_IS_EXCLUDED) {
                const real invR = RECIP(r);
                real t;
                const int row = findRow(r, position1.w, position2.w, &t);
                const mixed4 difference = vector1-vectors[j];
                const real along = (real) (delta.x*difference.x+delta.y*difference.y+delta.z*difference.z)*invR;
                if (includeHessian) {
                    const real4 a = table[row];
                    const real slopeOverR = (a.y+t*(2*a.z+t*3*a.w))*INVERSE_SPACING*invR;
                    const real curvature = (2*a.z+6*t*a.w)*INVERSE_SPACING*INVERSE_SPACING;
                    const real radial = along*(curvature-slopeOverR)*invR;
                    sumX += slopeOverR*difference.x+radial*delta.x;
                    sumY += slopeOverR*difference.y+radial*delta.y;
                    sumZ += slopeOverR*difference.z+radial*delta.z;
                }
                if (includeParameters && j > i)
                    addSlopeMoments(moments, row, t, -scale*along);
            }
        END_NEIGHBORS
        if (includeHessian)
            hessianProduct[i] = make_mixed4(sumX, sumY, sumZ, 0);
    }
}
