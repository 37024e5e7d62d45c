/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_SPLINETABLE_H_
#define OPENMM_DIFFSIM_SPLINETABLE_H_

#include "SplinePairForce.h"
#include <array>
#include <vector>

namespace DiffSim {

/**
 * The splines of all pairs of types as polynomials, the form that every platform evaluates. With x = (r-rMin)/spacing,
 * row 0 of a pair of types holds for x < 0 with t = x, row i+1 for knot i <= x < i+1 with t = x-i, and the last row,
 * beyond the cutoff, is zero:
 *
 *     u = a0 + a1 t + a2 t^2 + a3 t^3.
 *
 * The rows are linear in the coefficients. Sums over pairs of 1, t, t^2 and t^3 in each row therefore hold all that the
 * derivatives with respect to the coefficients need: toCoefficients() is the transpose of that linear map.
 */
class OPENMM_EXPORT_DIFFSIM SplineTable {
public:
    typedef std::array<double, 4> Row;
    explicit SplineTable(const SplinePairForce& force);
    /** Recompute the rows from the coefficients of the force. */
    void update(const SplinePairForce& force);
    int getRowsPerPair() const {
        return numKnots+1;
    }
    int getNumRows() const {
        return rows.size();
    }
    /** Rows of pair of types p begin at p*getRowsPerPair(). */
    const std::vector<Row>& getRows() const {
        return rows;
    }
    double getRMin() const {
        return rMin;
    }
    double getSpacing() const {
        return spacing;
    }
    double getCutoff() const {
        return cutoff;
    }
    int getNumTypes() const {
        return numTypes;
    }
    int getNumKnots() const {
        return numKnots;
    }
    int getNumTypePairs() const {
        return numTypePairs;
    }
    int getNumCoefficients() const {
        return numKnots-2;
    }
    /** First row of each pair of types, numTypes * numTypes numbers. */
    const std::vector<int>& getFirstRows() const {
        return firstRows;
    }
    /**
     * @param moments        sums over pairs of (1, t, t^2, t^3), each pair with a weight, for each row
     * @param coefficients   the same sums of the weights times B_k, numTypePairs * numCoefficients numbers
     */
    void toCoefficients(const std::vector<Row>& moments, double* coefficients) const;
    /**
     * Where molecules are single particles, the virial of a pair is -u'(r) r, and as r follows from the row and t, its
     * moments follow from those of the energy.
     *
     * @param moments   sums of (1, t, t^2, t^3), each pair with the weight 1
     * @return the moments of the virial, for toCoefficients()
     */
    std::vector<Row> toVirialMoments(const std::vector<Row>& moments) const;
private:
    int numTypes, numTypePairs, numKnots;
    double rMin, spacing, cutoff;
    std::vector<Row> rows;
    std::vector<int> firstRows;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SPLINETABLE_H_*/
