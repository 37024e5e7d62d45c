// One pair in OpenMM's own nonbonded kernel. Row 0 is the straight line below the first knot; rows 1, 2, ... are the
// cells between knots. At zero distance r and invR are not numbers.

if (!isExcluded && r2 < CUTOFF_SQUARED && TYPES_INTERACT) {
    const real x = (r2 > 0 ? r : 0)*INVERSE_SPACING+FIRST_X;
    const int row = min(max((int) x, 0), LAST_ROW);
    const real t = x-row;
    const real4 a = TABLE[FIRST_ROW+row];
    tempEnergy += a.x+t*(a.y+t*(a.z+t*a.w));
    if (r2 > 0)
        dEdR -= (a.y+t*(2*a.z+t*3*a.w))*INVERSE_SPACING*invR;
}
