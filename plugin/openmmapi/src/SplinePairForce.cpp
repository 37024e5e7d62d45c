/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "SplinePairForce.h"
#include "internal/SplinePairForceImpl.h"
#include "internal/refuse.h"
#include "openmm/internal/ContextImpl.h"
#include <algorithm>
#include <cmath>
#include <set>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

SplinePairForce::SplinePairForce(int numTypes, double rMin, double cutoff, int numKnots) : numTypes(numTypes), numKnots(numKnots),
        rMin(rMin), cutoff(cutoff), nonbondedMethod(CutoffNonPeriodic) {
    if (numTypes < 1)
        refuse("expected at least 1 type of particle, got ", numTypes);
    if (!(rMin > 0 && cutoff > rMin && isfinite(cutoff)))
        refuse("expected 0 < rMin < cutoff, got rMin = ", rMin, " nm and cutoff = ", cutoff, " nm");
    if (numKnots < 6)
        refuse("expected at least 6 knots, got ", numKnots);
    coefficients.assign(getNumTypePairs(), vector<double>(getNumCoefficients(), 0.0));
}

void SplinePairForce::checkType(int type, int lowest) const {
    if (type < lowest || type >= numTypes)
        refuse("expected a particle type ", lowest, " to ", numTypes-1, ", got ", type);
}

void SplinePairForce::checkParticle(int index) const {
    if (index < 0 || index >= (int) types.size())
        refuse("expected a particle index 0 to ", (int) types.size()-1, ", got ", index);
}

void SplinePairForce::checkExclusion(int index) const {
    if (index < 0 || index >= (int) exclusions.size())
        refuse("expected an exclusion index 0 to ", (int) exclusions.size()-1, ", got ", index);
}

int SplinePairForce::getTypePairIndex(int type1, int type2) const {
    checkType(type1, 0);
    checkType(type2, 0);
    int low = min(type1, type2), high = max(type1, type2);
    return low*numTypes-low*(low-1)/2+high-low;
}

const vector<double>& SplinePairForce::getTypePairCoefficients(int type1, int type2) const {
    return coefficients[getTypePairIndex(type1, type2)];
}

void SplinePairForce::setTypePairCoefficients(int type1, int type2, const vector<double>& values) {
    int pair = getTypePairIndex(type1, type2);
    if ((int) values.size() != getNumCoefficients())
        refuse("expected ", getNumCoefficients(), " coefficients for types ", type1, " and ", type2, ", got ", values.size());
    for (int k = 0; k < (int) values.size(); k++)
        if (!isfinite(values[k]))
            refuse("coefficient ", k, " of ", values.size(), " for types ", type1, " and ", type2, " is ", values[k],
                    ", expected a finite number");
    coefficients[pair] = values;
}

int SplinePairForce::addParticle(int type) {
    checkType(type, -1);
    types.push_back(type);
    return types.size()-1;
}

int SplinePairForce::getParticleType(int index) const {
    checkParticle(index);
    return types[index];
}

void SplinePairForce::setParticleType(int index, int type) {
    checkParticle(index);
    checkType(type, -1);
    types[index] = type;
}

int SplinePairForce::addExclusion(int particle1, int particle2) {
    exclusions.push_back(make_pair(particle1, particle2));
    return exclusions.size()-1;
}

void SplinePairForce::getExclusionParticles(int index, int& particle1, int& particle2) const {
    checkExclusion(index);
    particle1 = exclusions[index].first;
    particle2 = exclusions[index].second;
}

void SplinePairForce::setExclusionParticles(int index, int particle1, int particle2) {
    checkExclusion(index);
    exclusions[index] = make_pair(particle1, particle2);
}

void SplinePairForce::createExclusionsFromBonds(const vector<pair<int, int> >& bonds, int bondCutoff) {
    if (bondCutoff < 1)
        return;
    vector<set<int> > bonded(types.size());
    for (auto& bond : bonds) {
        checkParticle(bond.first);
        checkParticle(bond.second);
        bonded[bond.first].insert(bond.second);
        bonded[bond.second].insert(bond.first);
    }
    for (int i = 0; i < (int) types.size(); i++) {
        set<int> found = {i}, shell = {i};
        for (int distance = 0; distance < bondCutoff; distance++) {
            set<int> next;
            for (int j : shell)
                for (int k : bonded[j])
                    if (found.insert(k).second)
                        next.insert(k);
            shell = next;
        }
        for (int j : found)
            if (j < i)
                addExclusion(j, i);
    }
}

void SplinePairForce::setNonbondedMethod(NonbondedMethod method) {
    if (method != CutoffNonPeriodic && method != CutoffPeriodic)
        refuse("expected the nonbonded method CutoffNonPeriodic (1) or CutoffPeriodic (2), got ", (int) method);
    nonbondedMethod = method;
}

ForceImpl* SplinePairForce::createImpl() const {
    return new SplinePairForceImpl(*this);
}

SplinePairForceImpl& SplinePairForce::getImpl(Context& context) const {
    return dynamic_cast<SplinePairForceImpl&>(getImplInContext(context));
}

void SplinePairForce::updateParametersInContext(Context& context) {
    getImpl(context).updateParametersInContext(getContextImpl(context));
}

void SplinePairForce::computeSums(Context& context, const PairFrames& frames, PairSums& sums) const {
    getImpl(context).computeSums(getContextImpl(context), frames, sums);
}

void SplinePairForce::computeProducts(Context& context, const PairFrames& frames, const Vec3* vectors, Vec3* hessianProduct,
        double* parameterProduct) const {
    getImpl(context).computeProducts(getContextImpl(context), frames, vectors, hessianProduct, parameterProduct);
}
