/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "internal/SegmentAdjoint.h"
#include <algorithm>
#include <cmath>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

bool isZero(const Vec3* vectors, int count) {
    return vectors == nullptr || all_of(vectors, vectors+count, [] (const Vec3& r) { return r == Vec3(); });
}

void add(const Vec3* vectors, vector<Vec3>& sum) {
    if (vectors != nullptr)
        for (size_t i = 0; i < sum.size(); i++)
            sum[i] += vectors[i];
}

} // namespace

SegmentAdjoint::SegmentAdjoint(const SegmentMasses& masses, const StepSplitting& splitting, const ChainPropagator* chain,
        const StoredSegment& segment, const SegmentGradientOptions& options, Products products) : masses(masses),
        splitting(splitting), chain(chain), segment(segment), options(options), products(products) {
}

SegmentGradient SegmentAdjoint::run(const Vec3* positionGradients, const Vec3* velocityGradients, int numSums) {
    int numParticles = masses.getNumParticles(), length = (chain == nullptr ? 0 : chain->getLength());
    gradient = SegmentGradient();
    gradient.parameters.assign(numSums, 0.0);
    gradient.noise.assign(options.includeNoise ? (size_t) segment.numSteps*numParticles : 0, Vec3());
    gradient.growth.assign(segment.numSteps+1, 0.0);
    x.assign(numParticles, Vec3());
    v.assign(numParticles, Vec3());
    thermostats.assign(length, 0.0);
    weights.assign(numParticles, Vec3());
    hessianProduct.resize(numParticles);
    parameterProduct.resize(numSums);
    bound = 0;
    last = findLast(positionGradients, velocityGradients);
    for (int time = last; time >= 0; time--) {
        size_t first = (size_t) time*numParticles;
        visit(time, positionGradients == nullptr ? nullptr : positionGradients+first,
                velocityGradients == nullptr ? nullptr : velocityGradients+first);
        gradient.growth[time] = getNorm();
        clip(gradient.growth[time]);
        if (time > 0)
            stepBack(time);
    }
    gradient.positions = x;
    gradient.velocities = v;
    gradient.chainState.assign(length, 0.0); // nothing depends on the thermostats' positions
    gradient.chainState.insert(gradient.chainState.end(), thermostats.begin(), thermostats.end());
    return gradient;
}

// The force at a time acts twice, by the last kick of the step before and the first kick of the step after; its weight, dL/dF,
// has both parts. Truncation comes between them: it drops how the state at that time acts on the step after and all that
// follow, and keeps how the parameters act there.
void SegmentAdjoint::visit(int time, const Vec3* positionGradients, const Vec3* velocityGradients) {
    bool isKicked = (time < last && splitting.kick1 != 0);
    if (isKicked)
        addWeights(splitting.kick1); // v is the gradient with respect to v1 as well
    if (options.truncation > 0 && time < last && (last-time)%options.truncation == 0) {
        if (isKicked)
            applyForce(time, false);
        isKicked = false;
        clear();
    }
    add(positionGradients, x);
    add(velocityGradients, v);
    if (time > 0 && splitting.kick2 != 0) {
        addWeights(splitting.kick2);
        isKicked = true;
    }
    if (isKicked)
        applyForce(time, true);
}

// The last time that L depends on directly, or -1.
int SegmentAdjoint::findLast(const Vec3* positionGradients, const Vec3* velocityGradients) const {
    int numParticles = masses.getNumParticles(), t = segment.numSteps;
    auto at = [&] (const Vec3* vectors) { return vectors == nullptr ? nullptr : vectors+(size_t) t*numParticles; };
    while (t >= 0 && isZero(at(positionGradients), numParticles) && isZero(at(velocityGradients), numParticles))
        t--;
    return t;
}

// With v being dL/dv of the velocities that the force changes.
void SegmentAdjoint::addWeights(double kick) {
    for (int i = 0; i < masses.getNumParticles(); i++)
        weights[i] += v[i]*(kick*masses.getInverseMass(i));
}

// Through the force at a time, to parameters and, but for what is truncated, to positions.
void SegmentAdjoint::applyForce(int time, bool toPositions) {
    products(time, weights.data(), toPositions ? hessianProduct.data() : nullptr, parameterProduct.data());
    for (size_t k = 0; k < parameterProduct.size(); k++)
        gradient.parameters[k] += parameterProduct[k];
    for (size_t i = 0; toPositions && i < x.size(); i++)
        x[i] -= hessianProduct[i];
    fill(weights.begin(), weights.end(), Vec3());
}

// From a time to the one before, through all of a step but its forces.
void SegmentAdjoint::stepBack(int time) {
    int numParticles = masses.getNumParticles();
    for (int i = 0; i < numParticles; i++)
        if (masses.moves(i)) {
            v[i] += x[i]*splitting.drift2; // now of v2, hence of the noise
            if (options.includeNoise)
                gradient.noise[(size_t) (time-1)*numParticles+i] = v[i];
        }
    if (chain != nullptr)
        stepBackThroughChain(time);
    for (int i = 0; i < numParticles; i++)
        if (masses.moves(i))
            v[i] = (chain == nullptr ? v[i]*splitting.scale : v[i])+x[i]*splitting.drift1;
}

// From v2 to v1, which the chain scaled. Its first thermostat scales by exp(-v_0 dt) where it moves by v_0 dt.
void SegmentAdjoint::stepBackThroughChain(int time) {
    int numParticles = masses.getNumParticles(), size = 2*chain->getLength();
    const double* state = segment.chainStates+(size_t) (time-1)*size;
    double factor = exp(state[0]-state[size]), factorGradient = 0;
    vector<Vec3> v1(numParticles);
    for (int i = 0; i < numParticles; i++)
        if (masses.moves(i)) {
            v1[i] = segment.velocities[(size_t) time*numParticles+i]/factor;
            factorGradient += v[i].dot(v1[i]);
        }
    double energyGradient = chain->carryBack(masses.getKineticEnergy(v1.data()), state, factorGradient, thermostats);
    for (int i = 0; i < numParticles; i++)
        if (masses.moves(i))
            v[i] = v[i]*factor+v1[i]*(energyGradient*masses.getMass(i));
}

void SegmentAdjoint::clear() {
    fill(x.begin(), x.end(), Vec3());
    fill(v.begin(), v.end(), Vec3());
    fill(thermostats.begin(), thermostats.end(), 0.0);
}

void SegmentAdjoint::scale(double factor) {
    for (Vec3& r : x)
        r *= factor;
    for (Vec3& r : v)
        r *= factor;
    for (double& r : thermostats)
        r *= factor;
}

// Without clipping the bound stays zero, which means none.
void SegmentAdjoint::clip(double norm) {
    if (bound == 0)
        bound = options.clipping*norm;
    else if (norm > bound)
        scale(bound/norm);
}

double SegmentAdjoint::getNorm() const {
    double sum = 0, dt = splitting.drift1+splitting.drift2;
    for (int i = 0; i < masses.getNumParticles(); i++)
        sum += (x[i].dot(x[i])*dt*dt+v[i].dot(v[i]))*masses.getInverseMass(i);
    return sqrt(sum);
}
