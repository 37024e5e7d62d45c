#include "internal/SegmentIntegrator.h"
#include "internal/refuse.h"
#include "openmm/Integrator.h"
#include "openmm/System.h"
#include <algorithm>
#include <cmath>
#include <limits>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

const double FARTHEST = 1e9; // nm; what went as far is lost, and single precision would end not much later
const double LARGEST = numeric_limits<double>::max();

void checkNotExploded(int step, const char* what, const Vec3* vectors, int count, double limit) {
    for (int i = 0; i < count; i++)
        for (int axis = 0; axis < 3; axis++)
            if (!(fabs(vectors[i][axis]) <= limit))
                refuse("the segment exploded at step ", step, ": a component of the ", what, " of particle ", i, " is ",
                        vectors[i][axis], "; a shorter time step or another start may help");
}

} // namespace

SegmentMasses::SegmentMasses(const System& system) {
    if (system.getNumConstraints() > 0)
        refuse("a segment knows no constraints, but the System has ", system.getNumConstraints());
    for (int i = 0; i < system.getNumParticles(); i++) {
        if (system.isVirtualSite(i))
            refuse("a segment knows no virtual sites, but particle ", i, " is one");
        masses.push_back(system.getParticleMass(i));
        inverseMasses.push_back(masses[i] == 0 ? 0 : 1/masses[i]);
    }
}

double SegmentMasses::getKineticEnergy(const Vec3* velocities) const {
    double energy = 0;
    for (int i = 0; i < getNumParticles(); i++)
        energy += 0.5*masses[i]*velocities[i].dot(velocities[i]);
    return energy;
}

unique_ptr<ChainPropagator> DiffSim::makeChainPropagator(const DiffSim::NoseHooverChain* chain, const StepSplitting& splitting) {
    if (chain == nullptr)
        return nullptr;
    if (splitting.kick2 != 0)
        refuse("a Nose-Hoover chain needs steps of the form (dt, dt/2, any scale, dt/2, 0), got a last kick of ", splitting.kick2,
                " ps");
    return make_unique<ChainPropagator>(*chain, splitting.drift1+splitting.drift2);
}

SegmentIntegrator::SegmentIntegrator(ContextImpl& context, const SegmentMasses& masses, const StepSplitting& splitting,
        const ChainPropagator* chain, const Vec3* box) : context(context), masses(masses), splitting(splitting), chain(chain) {
    context.getPositions(ownPositions);
    context.getPeriodicBoxVectors(ownBox[0], ownBox[1], ownBox[2]);
    copy(box, box+3, runBox);
}

// OpenMM rebuilds neighbor lists when particles have moved, not when the box has changed. So all of them take a detour, by half
// a box vector, which is not undone by wrapping them into the box.
void SegmentIntegrator::setBox(const Vec3* box, const Vec3* positions) {
    Vec3 old[3];
    context.getPeriodicBoxVectors(old[0], old[1], old[2]);
    if (equal(box, box+3, old))
        return;
    context.setPeriodicBoxVectors(box[0], box[1], box[2]);
    present.assign(positions, positions+masses.getNumParticles());
    for (Vec3& r : present)
        r += box[0]*0.5;
    context.setPositions(present);
    context.calcForcesAndEnergy(true, false);
}

void SegmentIntegrator::restore() {
    setBox(ownBox, ownPositions.data());
    context.setPositions(ownPositions);
}

void SegmentIntegrator::run(int numSteps, Vec3* positions, Vec3* velocities, const Vec3* noise, double* chainStates) {
    int numParticles = masses.getNumParticles();
    setBox(runBox, positions);
    if (splitting.kick1 != 0 && numSteps > 0)
        computeForces(0, positions);
    for (int step = 1; step <= numSteps; step++) {
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
        if (splitting.kick2 != 0 || (splitting.kick1 != 0 && step < numSteps))
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
    present.assign(positions, positions+masses.getNumParticles());
    context.setPositions(present);
    context.calcForcesAndEnergy(true, false, context.getIntegrator().getIntegrationForceGroups());
    context.getForces(forces);
    checkNotExploded(step, "force", forces.data(), forces.size(), LARGEST);
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
