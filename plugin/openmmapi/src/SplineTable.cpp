/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "internal/SplineTable.h"
#include <algorithm>

using namespace DiffSim;
using namespace std;

SplineTable::SplineTable(const SplinePairForce& force) : numTypes(force.getNumTypes()), numTypePairs(force.getNumTypePairs()),
        numKnots(force.getNumKnots()), rMin(force.getRMin()), spacing(force.getSpacing()), cutoff(force.getCutoffDistance()) {
    rows.resize(numTypePairs*getRowsPerPair());
    for (int i = 0; i < numTypes; i++)
        for (int j = 0; j < numTypes; j++)
            firstRows.push_back(force.getTypePairIndex(i, j)*getRowsPerPair());
    update(force);
}

void SplineTable::update(const SplinePairForce& force) {
    int numCoefficients = getNumCoefficients();
    for (int i = 0; i < numTypes; i++)
        for (int j = i; j < numTypes; j++) {
            const vector<double>& c = force.getTypePairCoefficients(i, j);
            Row* row = &rows[firstRows[i*numTypes+j]];
            auto at = [&] (int k) {
                return k < 0 ? 2*c[0]-c[1] : (k < numCoefficients ? c[k] : 0.0);
            };
            row[0] = {c[0], c[1]-c[0], 0, 0};
            for (int cell = 0; cell < numKnots-1; cell++) {
                double c0 = at(cell-1), c1 = at(cell), c2 = at(cell+1), c3 = at(cell+2);
                row[cell+1] = {(c0+4*c1+c2)/6, (c2-c0)/2, (c0-2*c1+c2)/2, (c3-c0+3*(c1-c2))/6};
            }
            row[numKnots] = {0, 0, 0, 0};
        }
}

void SplineTable::toCoefficients(const vector<Row>& moments, double* coefficients) const {
    int numCoefficients = getNumCoefficients();
    fill(coefficients, coefficients+numTypePairs*numCoefficients, 0.0);
    for (int pair = 0; pair < numTypePairs; pair++) {
        const Row* row = &moments[pair*getRowsPerPair()];
        double* c = coefficients+pair*numCoefficients;
        auto add = [&] (int k, double value) {
            if (k < 0) {
                c[0] += 2*value;
                c[1] -= value;
            }
            else if (k < numCoefficients)
                c[k] += value;
        };
        c[0] += row[0][0]-row[0][1];
        c[1] += row[0][1];
        for (int cell = 0; cell < numKnots-1; cell++) {
            const Row& m = row[cell+1];
            add(cell-1, m[0]/6-m[1]/2+m[2]/2-m[3]/6);
            add(cell, 2*m[0]/3-m[2]+m[3]/2);
            add(cell+1, m[0]/6+m[1]/2+m[2]/2-m[3]/2);
            add(cell+2, m[3]/6);
        }
    }
}

vector<SplineTable::Row> SplineTable::toVirialMoments(const vector<Row>& moments) const {
    vector<Row> virial;
    for (int row = 0; row < (int) moments.size(); row++) {
        const Row& m = moments[row];
        double first = rMin/spacing+max(0, row%getRowsPerPair()-1); // r/spacing where t = 0
        virial.push_back({0, -(first*m[0]+m[1]), -2*(first*m[1]+m[2]), -3*(first*m[2]+m[3])});
    }
    return virial;
}
