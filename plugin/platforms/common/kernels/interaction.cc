/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

// One pair in OpenMM's own nonbonded kernel. Row 0 of the table is the straight line below the first knot, the rows between
// are the cells between knots, and the last one, met by rounding only, is zero. At zero distance invR is infinite.

if (!isExcluded && r2 < CUTOFF_SQUARED && TYPE1 >= 0 && TYPE2 >= 0) {
    const real finiteInvR = (r2 > 0 ? invR : 0);
    const real x = r2*finiteInvR*INVERSE_SPACING+FIRST_X;
    const int row = max((int) x, 0);
    const real t = x-row;
    const real4 a = TABLE[FIRST_ROW+row];
#ifdef INCLUDE_ENERGY
    tempEnergy += a.x+t*(a.y+t*(a.z+t*a.w));
#endif
#ifdef INCLUDE_FORCES
    dEdR -= (a.y+t*(2*a.z+t*3*a.w))*INVERSE_SPACING*finiteInvR;
#endif
}
