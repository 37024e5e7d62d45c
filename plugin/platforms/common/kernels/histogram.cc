/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

/**
 * Count ordered pairs by distance. The fourth number of a position has bit 0 for the first selection and bit 1 for the second.
 */
KERNEL void computeHistogram(CELL_ARGUMENTS, GLOBAL const int* RESTRICT groups, GLOBAL const mixed* RESTRICT edges, int numBins, int isUniform,
        GLOBAL mm_ulong* RESTRICT counts, int numReplicas) {
    GLOBAL mm_ulong* bins = &counts[(GROUP_ID%numReplicas)*numBins];
    const mixed binsPerLength = numBins/(edges[numBins]-edges[0]);
    for (int i = GLOBAL_ID; i < numParticles; i += GLOBAL_SIZE) {
        const int group = groups[i];
        BEGIN_NEIGHBORS(i, i+1)
            const int a = (int) position1.w, b = (int) position2.w;
            const int times = ((a&1) != 0 && (b&2) != 0)+((a&2) != 0 && (b&1) != 0);
            const mixed r = sqrt(r2);
            if (times > 0 && (group < 0 || group != groups[j]) && r >= edges[0] && r < edges[numBins]) {
                // Where the bins have the same width, the first guess is at most one off.

                int low = 0, high = numBins; // edges[low] <= r < edges[high]
                if (isUniform) {
                    const int guess = (int) ((r-edges[0])*binsPerLength);
                    low = max(guess-1, 0);
                    high = min(guess+2, numBins);
                }
                while (high-low > 1) {
                    const int middle = (low+high)/2;
                    if (r < edges[middle])
                        high = middle;
                    else
                        low = middle;
                }
                ATOMIC_ADD(&bins[low], (mm_ulong) times);
            }
        END_NEIGHBORS
    }
}
