/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "internal/SplinePairForceImpl.h"
#include "internal/refuse.h"
#include <algorithm>
#include <cmath>
#include <set>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

// The longest distance at which the nearest image is unique.
double largestRange(const Vec3* box) {
    return 0.5*min(box[0][0], min(box[1][1], box[2][2]));
}

// As a Context wants them, but for what boxes kept in single precision are off by.
bool isReduced(const Vec3* box) {
    double slack = 1+1e-6;
    return box[0][1] == 0 && box[0][2] == 0 && box[1][2] == 0 && box[0][0] > 0 && box[1][1] > 0 && box[2][2] > 0 &&
            2*fabs(box[1][0]) <= slack*box[0][0] && 2*fabs(box[2][0]) <= slack*box[0][0] && 2*fabs(box[2][1]) <= slack*box[1][1];
}

} // namespace

SplinePairForceImpl::SplinePairForceImpl(const SplinePairForce& owner) : owner(owner),
        periodic(owner.usesPeriodicBoundaryConditions()), cutoff(owner.getCutoffDistance()), foundMolecules(false) {
    forceGroup = owner.getForceGroup();
}

void SplinePairForceImpl::initialize(ContextImpl& context) {
    const System& system = context.getSystem();
    numParticles = system.getNumParticles();
    if (owner.getNumParticles() != numParticles)
        refuse("must have exactly as many particles as the System it belongs to, ", numParticles, ", got ", owner.getNumParticles());
    set<pair<int, int> > found;
    for (int i = 0; i < owner.getNumExclusions(); i++) {
        int particle1, particle2;
        owner.getExclusionParticles(i, particle1, particle2);
        if (min(particle1, particle2) < 0 || max(particle1, particle2) >= numParticles || particle1 == particle2)
            refuse("exclusion ", i, ": expected two particles 0 to ", numParticles-1, ", got ", particle1, " and ", particle2);
        if (!found.insert({min(particle1, particle2), max(particle1, particle2)}).second)
            refuse("exclusion ", i, ": particles ", particle1, " and ", particle2, " are excluded twice");
    }
    if (periodic) {
        Vec3 box[3];
        system.getDefaultPeriodicBoxVectors(box[0], box[1], box[2]);
        checkBox(box);
    }
    kernel = context.getPlatform().createKernel(CalcSplinePairForceKernel::Name(), context);
    getKernel().initialize(system, owner);
}

CalcSplinePairForceKernel& SplinePairForceImpl::getKernel() {
    return kernel.getAs<CalcSplinePairForceKernel>();
}

void SplinePairForceImpl::checkBox(const Vec3* box) const {
    if (!periodic)
        return;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            if (!isfinite(box[i][j]))
                refuse("component ", j, " of periodic box vector ", i, " is ", box[i][j], ", expected a finite number");
    if (!isReduced(box))
        refuse("the periodic box vectors must be in reduced form, got ", box[0], ", ", box[1], ", ", box[2]);
    if (cutoff > largestRange(box)*(1+1e-6))
        refuse("the cutoff, ", cutoff, " nm, must not be greater than half the periodic box size, ",
                largestRange(box), " nm");
}

void SplinePairForceImpl::findBox(ContextImpl& context, const Vec3* given, Vec3* box) const {
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    if (given != nullptr)
        copy(given, given+3, box);
    checkBox(box);
}

void SplinePairForceImpl::checkFinite(const Vec3* vectors, const char* what, int index) const {
    for (int i = 0; i < numParticles; i++)
        for (int axis = 0; axis < 3; axis++)
            if (!isfinite(vectors[i][axis]))
                refuse(what, " ", index, ": a coordinate of particle ", i, " is ", vectors[i][axis], ", expected a finite number");
}

double SplinePairForceImpl::calcForcesAndEnergy(ContextImpl& context, bool includeForces, bool includeEnergy, int groups) {
    if ((groups&(1<<forceGroup)) == 0)
        return 0.0;
    if (periodic) {
        Vec3 box[3];
        context.getPeriodicBoxVectors(box[0], box[1], box[2]);
        checkBox(box);
    }
    return getKernel().execute(context, includeForces, includeEnergy);
}

vector<string> SplinePairForceImpl::getKernelNames() {
    return {CalcSplinePairForceKernel::Name()};
}

void SplinePairForceImpl::updateParametersInContext(ContextImpl& context) {
    if (owner.getNumParticles() != numParticles)
        refuse("the number of particles has changed from ", numParticles, " to ", owner.getNumParticles());
    getKernel().copyParametersToContext(context, owner);
    context.systemChanged();
}

// The present or the stored configurations, one after the other: function(index, configuration).
template <class Function>
void SplinePairForceImpl::forEachFrame(ContextImpl& context, const PairFrames& frames, Function function) {
    PairConfiguration configuration;
    vector<Vec3> present;
    if (frames.positions == nullptr)
        context.getPositions(present);
    context.getPeriodicBoxVectors(configuration.box[0], configuration.box[1], configuration.box[2]);
    int numFrames = (frames.positions == nullptr ? 1 : frames.numFrames);
    for (int frame = 0; frame < numFrames; frame++) {
        configuration.positions = (frames.positions == nullptr ? present.data() : frames.positions+(size_t) frame*numParticles);
        if (frames.boxes != nullptr)
            for (int axis = 0; axis < 3; axis++)
                configuration.box[axis] = frames.boxes[3*frame+axis];
        checkFinite(configuration.positions, "frame", frame);
        checkBox(configuration.box);
        function(frame, configuration);
    }
}

void SplinePairForceImpl::checkHistogram(const PairHistogram& histogram, const Vec3* box) const {
    const vector<double>& edges = histogram.edges;
    if (edges.size() < 2 || !(edges[0] >= 0))
        refuse("a histogram needs at least two edges, the first not negative, got ", edges.size(), " edges");
    for (size_t i = 1; i < edges.size(); i++)
        if (!(edges[i] > edges[i-1]) || !isfinite(edges[i]))
            refuse("the edges of a histogram must rise, but edge ", i, " is ", edges[i], " nm after ", edges[i-1], " nm");
    if ((int) histogram.selections.size() != numParticles)
        refuse("a histogram needs ", numParticles, " selections, one for each particle, got ", histogram.selections.size());
    if (histogram.groups.size() > 0 && (int) histogram.groups.size() != numParticles)
        refuse("a histogram needs ", numParticles, " groups, one for each particle, or none, got ", histogram.groups.size());
    if (periodic && edges.back() > largestRange(box)*(1+1e-6))
        refuse("the last edge of a histogram, ", edges.back(), " nm, must not be greater than half the periodic box size, ",
                largestRange(box), " nm");
}

void SplinePairForceImpl::computeSums(ContextImpl& context, const PairFrames& frames, PairSums& sums) {
    size_t numFrames = (frames.positions == nullptr ? 1 : frames.numFrames);
    size_t numSums = owner.getNumTypePairs()*owner.getNumCoefficients();
    sums.basis.assign(sums.includeBasis ? numFrames*numSums : 0, 0.0);
    sums.virial.assign(sums.includeVirial ? numFrames*numSums : 0, 0.0);
    sums.counts.assign(sums.histograms.size(), vector<long long>());
    vector<vector<long long> > counts(sums.histograms.size());
    if (sums.includeVirial)
        findMolecules(context);
    forEachFrame(context, frames, [&] (int frame, PairConfiguration& configuration) {
        for (size_t i = 0; i < counts.size(); i++) {
            checkHistogram(sums.histograms[i], configuration.box);
            counts[i].assign(sums.histograms[i].edges.size()-1, 0);
        }
        if (sums.includeVirial && hasMolecules) {
            findOffsets(configuration.positions);
            configuration.offsets = offsets.data();
        }
        getKernel().computeSums(context, configuration, sums, sums.basis.data()+(sums.includeBasis ? frame*numSums : 0),
                sums.virial.data()+(sums.includeVirial ? frame*numSums : 0), counts);
        for (size_t i = 0; i < counts.size(); i++)
            sums.counts[i].insert(sums.counts[i].end(), counts[i].begin(), counts[i].end());
    });
}

void SplinePairForceImpl::computeProducts(ContextImpl& context, const PairFrames& frames, const Vec3* vectors, Vec3* hessianProduct,
        double* parameterProduct) {
    size_t numSums = owner.getNumTypePairs()*owner.getNumCoefficients();
    forEachFrame(context, frames, [&] (int frame, PairConfiguration& configuration) {
        getKernel().computeProducts(context, configuration, vectors+(size_t) frame*numParticles,
                hessianProduct == nullptr ? nullptr : hessianProduct+(size_t) frame*numParticles,
                parameterProduct == nullptr ? nullptr : parameterProduct+frame*numSums);
    });
}

void SplinePairForceImpl::findMolecules(ContextImpl& context) {
    if (foundMolecules)
        return;
    molecules = context.getMolecules();
    hasMolecules = false;
    for (auto& molecule : molecules)
        hasMolecules |= (molecule.size() > 1);
    offsets.assign(hasMolecules ? numParticles : 0, Vec3());
    foundMolecules = true;
}

// The center of a molecule is the mean position, as for OpenMM's barostats.
void SplinePairForceImpl::findOffsets(const Vec3* positions) {
    for (auto& molecule : molecules) {
        Vec3 center;
        for (int i : molecule)
            center += positions[i];
        center *= 1.0/molecule.size();
        for (int i : molecule)
            offsets[i] = positions[i]-center;
    }
}
