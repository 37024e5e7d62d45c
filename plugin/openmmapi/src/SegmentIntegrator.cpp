/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "internal/SegmentIntegrator.h"
#include "internal/refuse.h"
#include "openmm/Integrator.h"
#include <algorithm>
#include <cmath>
#include <limits>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

const double FARTHEST = 1e9; // nm; what went as far is lost, and single precision would end not much later
const double LARGEST = numeric_limits<double>::max();
const int ALL_GROUPS = 0xFFFFFFFF;

void checkNotExploded(int step, const char* what, const Vec3* vectors, int count, double limit) {
    for (int i = 0; i < count; i++)
        for (int axis = 0; axis < 3; axis++)
            if (!(fabs(vectors[i][axis]) <= limit))
                refuse("the segment exploded at step ", step, ": a component of the ", what, " of particle ", i, " is ",
                        vectors[i][axis], "; a shorter time step or another start may help");
}

} // namespace

SegmentIntegrator::SegmentIntegrator(ContextImpl& context, CalcSplinePairForceKernel& kernel, const SegmentMasses& masses,
        const StepSplitting& splitting, const ChainPropagator* chain, const Vec3* box) : context(context), kernel(kernel),
        masses(masses), splitting(splitting), chain(chain), boxIsNew(false) {
    context.getPositions(ownPositions);
    context.getPeriodicBoxVectors(ownBox[0], ownBox[1], ownBox[2]);
    copy(box, box+3, runBox);
}

void SegmentIntegrator::setBox(const Vec3* box) {
    Vec3 old[3];
    context.getPeriodicBoxVectors(old[0], old[1], old[2]);
    if (equal(box, box+3, old))
        return;
    context.setPeriodicBoxVectors(box[0], box[1], box[2]);
    boxIsNew = true;
}

// All forces are computed once more in the box that was put back, so that no later call meets a neighbor list of the segment's.
void SegmentIntegrator::restore() {
    setBox(ownBox);
    if (boxIsNew)
        evaluate(ownPositions.data(), ALL_GROUPS);
    context.setPositions(ownPositions);
}

void SegmentIntegrator::run(const Segment& segment, const Vec3* noise) {
    int numParticles = masses.getNumParticles();
    Vec3* positions = segment.positions;
    Vec3* velocities = segment.velocities;
    double* chainStates = segment.chainStates;
    setBox(runBox);
    if (splitting.kick1 != 0 && segment.numSteps > 0)
        computeForces(0, positions);
    for (int step = 1; step <= segment.numSteps; step++) {
        Vec3* x = copy(positions, positions+numParticles, positions+numParticles)-numParticles;
        Vec3* v = copy(velocities, velocities+numParticles, velocities+numParticles)-numParticles;
        kick(splitting.kick1, v);
        drift(splitting.drift1, x, v);
        double scale = splitting.scale;
        if (chain != nullptr) {
            int size = 2*chain->getLength();
            chainStates = copy(chainStates, chainStates+size, chainStates+size)-size;
            scale = chain->propagate(masses.getKineticEnergy(v), chainStates);
        }
        scaleAndDisturb(scale, noise, v);
        drift(splitting.drift2, x, v);
        checkNotExploded(step, "position", x, numParticles, FARTHEST);
        if (splitting.kick2 != 0 || (splitting.kick1 != 0 && step < segment.numSteps))
            computeForces(step, x);
        kick(splitting.kick2, v);
        checkNotExploded(step, "velocity", v, numParticles, LARGEST);
        positions = x;
        velocities = v;
        if (noise != nullptr)
            noise += numParticles;
    }
}

void SegmentIntegrator::computeForces(int step, const Vec3* positions) {
    evaluate(positions, context.getIntegrator().getIntegrationForceGroups());
    context.getForces(forces);
    checkNotExploded(step, "force", forces.data(), forces.size(), LARGEST);
}

// OpenMM makes a new neighbor list when particles have moved, not when the box has changed, and has no call to ask for one.
// What a segment starts from is as a rule far from where the particles were, so the kernel is asked whether there is a new
// list. Only where it cannot tell, or there is none, forces are computed elsewhere before, all particles being moved alike.
void SegmentIntegrator::evaluate(const Vec3* positions, int groups) {
    auto evaluateAt = [&] (Vec3 shift) {
        present.assign(positions, positions+masses.getNumParticles());
        for (Vec3& r : present)
            r += shift;
        context.setPositions(present);
        context.calcForcesAndEnergy(true, false, groups);
    };
    evaluateAt(Vec3());
    if (boxIsNew && !kernel.hasNewNeighborLists(context)) {
        Vec3 box[3];
        context.getPeriodicBoxVectors(box[0], box[1], box[2]);
        evaluateAt(box[0]*0.5); // which is not undone by wrapping into the box
        evaluateAt(Vec3());
    }
    boxIsNew = false;
}

void SegmentIntegrator::kick(double time, Vec3* velocities) const {
    if (time == 0)
        return;
    for (int i = 0; i < masses.getNumParticles(); i++)
        velocities[i] += forces[i]*(time*masses.getInverseMass(i));
}

void SegmentIntegrator::drift(double time, Vec3* positions, const Vec3* velocities) const {
    for (int i = 0; i < masses.getNumParticles(); i++)
        if (masses.moves(i))
            positions[i] += velocities[i]*time;
}

void SegmentIntegrator::scaleAndDisturb(double scale, const Vec3* noise, Vec3* velocities) const {
    for (int i = 0; i < masses.getNumParticles(); i++)
        if (masses.moves(i)) {
            velocities[i] *= scale;
            if (noise != nullptr)
                velocities[i] += noise[i];
        }
}
