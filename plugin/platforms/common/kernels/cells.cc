/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

/**
 * Particles sorted into cells, and what all loops over their pairs share. Cell (x, y, z) has the index
 * (x*dims.y+y)*dims.z+z, and its particles are those from cellStarts[index] to cellStarts[index+1]-1. A cell outside of
 * the grid is a cell of another image of the periodic box.
 */

DEVICE int floorDivide(int a, int b) {
    return (a >= 0 ? a/b : -((b-1-a)/b));
}

#define CELL_ARGUMENTS int numParticles, GLOBAL const mixed4* RESTRICT positions, GLOBAL const int* RESTRICT particleCells, \
        GLOBAL const int* RESTRICT cellStarts, int4 dims, int4 reach, mixed4 boxX, mixed4 boxY, mixed4 boxZ, mixed range

/**
 * Between these two stands what is done with a particle j >= first within the range of particle i, other than i itself.
 * There are its position as position2, the vector delta from its nearest image to particle i, and its square r2.
 */
#define BEGIN_NEIGHBORS(i, first) { \
    const mixed4 position1 = positions[i]; \
    const int cell = particleCells[i]; \
    const int cellX = cell/(dims.y*dims.z), cellY = (cell/dims.z)%dims.y, cellZ = cell%dims.z; \
    for (int x = cellX-reach.x; x <= cellX+reach.x; x++) { \
        const int imageX = floorDivide(x, dims.x); \
        for (int y = cellY-reach.y; y <= cellY+reach.y; y++) { \
            const int imageY = floorDivide(y, dims.y); \
            const int firstCell = ((x-imageX*dims.x)*dims.y+y-imageY*dims.y)*dims.z; \
            for (int imageZ = floorDivide(cellZ-reach.z, dims.z); imageZ <= floorDivide(cellZ+reach.z, dims.z); imageZ++) { \
                if (!PERIODIC && (imageX != 0 || imageY != 0 || imageZ != 0)) \
                    continue; \
                const mixed4 shifted = position1-imageX*boxX-imageY*boxY-imageZ*boxZ; \
                const int begin = max(first, cellStarts[firstCell+max(0, cellZ-reach.z-imageZ*dims.z)]); \
                const int end = cellStarts[firstCell+min(dims.z-1, cellZ+reach.z-imageZ*dims.z)+1]; \
                for (int j = begin; j < end; j++) { \
                    const mixed4 position2 = positions[j]; \
                    const mixed3 delta = make_mixed3(shifted.x-position2.x, shifted.y-position2.y, shifted.z-position2.z); \
                    const mixed r2 = delta.x*delta.x+delta.y*delta.y+delta.z*delta.z; \
                    if (j != i && r2 < range*range) {

#define END_NEIGHBORS }}}}}}

/**
 * Sums in fixed point come out the same in any order and need no atomic addition of floating point numbers.
 */
DEVICE void addFixedPoint(GLOBAL mm_ulong* RESTRICT sum, mixed value) {
    ATOMIC_ADD(sum, (mm_ulong) (mm_long) floor(value+0.5f));
}
