/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "ReferenceSplinePairKernels.h"
#include "openmm/reference/ReferencePlatform.h"
#include <algorithm>
#include <cmath>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

ReferencePlatform::PlatformData& platformData(ContextImpl& context) {
    return *reinterpret_cast<ReferencePlatform::PlatformData*>(context.getPlatformData());
}

} // namespace

void ReferenceCalcSplinePairForceKernel::initialize(const System& system, const SplinePairForce& force) {
    periodic = force.usesPeriodicBoundaryConditions();
    table.reset(new SplineTable(force));
    types = force.getParticleTypes();
    for (int index = 0; index < force.getNumExclusions(); index++) {
        int i, j;
        force.getExclusionParticles(index, i, j);
        exclusions.insert({min(i, j), max(i, j)});
    }
}

void ReferenceCalcSplinePairForceKernel::copyParametersToContext(ContextImpl& context, const SplinePairForce& force) {
    table->update(force);
    types = force.getParticleTypes();
}

// function(i, j, delta, r) for i < j, whatever r is.
template <class Function>
void ReferenceCalcSplinePairForceKernel::forEachPair(const PairConfiguration& configuration, Function function) const {
    const Vec3* box = configuration.box;
    for (int i = 0; i < (int) types.size(); i++)
        for (int j = i+1; j < (int) types.size(); j++) {
            Vec3 delta = configuration.positions[i]-configuration.positions[j];
            if (periodic)
                for (int axis = 2; axis >= 0; axis--)
                    delta -= box[axis]*floor(delta[axis]/box[axis][axis]+0.5);
            function(i, j, delta, sqrt(delta.dot(delta)));
        }
}

// function(pair) for those that interact.
template <class Function>
void ReferenceCalcSplinePairForceKernel::forEachInteraction(const PairConfiguration& configuration, Function function) const {
    forEachPair(configuration, [&] (int i, int j, const Vec3& delta, double r) {
        if (r >= table->getCutoff() || types[i] < 0 || types[j] < 0 || exclusions.count({i, j}) > 0)
            return;
        int row = table->getFirstRows()[types[i]*table->getNumTypes()+types[j]];
        double x = (r-table->getRMin())/table->getSpacing();
        if (x >= 0) {
            int cell = min((int) x, table->getNumKnots()-2);
            row += cell+1;
            x -= cell;
        }
        function(Pair{i, j, delta, r, row, x});
    });
}

double ReferenceCalcSplinePairForceKernel::execute(ContextImpl& context, bool includeForces, bool includeEnergy) {
    ReferencePlatform::PlatformData& data = platformData(context);
    PairConfiguration configuration;
    configuration.positions = data.positions->data();
    copy(data.periodicBoxVectors, data.periodicBoxVectors+3, configuration.box);
    vector<Vec3>& forces = *data.forces;
    double energy = 0;
    forEachInteraction(configuration, [&] (const Pair& pair) {
        const SplineTable::Row& a = table->getRows()[pair.row];
        double t = pair.t;
        energy += a[0]+t*(a[1]+t*(a[2]+t*a[3]));
        if (includeForces && pair.r > 0) {
            double slope = (a[1]+t*(2*a[2]+t*3*a[3]))/table->getSpacing();
            Vec3 force = pair.delta*(-slope/pair.r);
            forces[pair.i] += force;
            forces[pair.j] -= force;
        }
    });
    return energy;
}

void ReferenceCalcSplinePairForceKernel::computeSums(ContextImpl& context, const PairConfiguration& configuration,
        const PairSums& request, double* basis, double* virial, vector<vector<long long> >& counts) {
    vector<SplineTable::Row> basisMoments(table->getNumRows(), {0, 0, 0, 0}), virialMoments(basisMoments);
    const Vec3* offsets = configuration.offsets;
    if (request.includeBasis || request.includeVirial)
        forEachInteraction(configuration, [&] (const Pair& pair) {
            double t = pair.t;
            SplineTable::Row& b = basisMoments[pair.row];
            SplineTable::Row powers = {1, t, t*t, t*t*t};
            for (int k = 0; k < 4; k++)
                b[k] += powers[k];
            if (pair.r > 0) {
                // W = -u'(r) (delta . D)/r, D being the vector between the centers of the molecules.
                Vec3 centers = pair.delta;
                if (offsets != nullptr)
                    centers -= offsets[pair.i]-offsets[pair.j];
                double lever = -pair.delta.dot(centers)/(pair.r*table->getSpacing());
                SplineTable::Row& w = virialMoments[pair.row];
                for (int k = 1; k < 4; k++)
                    w[k] += lever*k*powers[k-1];
            }
        });
    if (request.includeBasis)
        table->toCoefficients(basisMoments, basis);
    if (request.includeVirial)
        table->toCoefficients(virialMoments, virial);
    if (request.histograms.size() > 0)
        forEachPair(configuration, [&] (int i, int j, const Vec3& delta, double r) {
            for (size_t h = 0; h < request.histograms.size(); h++) {
                const PairHistogram& histogram = request.histograms[h];
                int a = histogram.selections[i], b = histogram.selections[j];
                int times = ((a&1) != 0 && (b&2) != 0)+((a&2) != 0 && (b&1) != 0);
                bool together = (histogram.groups.size() > 0 && histogram.groups[i] >= 0 && histogram.groups[i] == histogram.groups[j]);
                auto above = upper_bound(histogram.edges.begin(), histogram.edges.end(), r);
                if (!together && above != histogram.edges.begin() && above != histogram.edges.end())
                    counts[h][above-histogram.edges.begin()-1] += times;
            }
        });
}

void ReferenceCalcSplinePairForceKernel::computeProducts(ContextImpl& context, const PairConfiguration& configuration,
        const Vec3* vectors, Vec3* hessianProduct, double* parameterProduct) {
    vector<SplineTable::Row> moments(table->getNumRows(), {0, 0, 0, 0});
    if (hessianProduct != nullptr)
        fill(hessianProduct, hessianProduct+types.size(), Vec3());
    double h = table->getSpacing();
    forEachInteraction(configuration, [&] (const Pair& pair) {
        if (pair.r == 0)
            return;
        const SplineTable::Row& a = table->getRows()[pair.row];
        double t = pair.t;
        Vec3 direction = pair.delta*(1/pair.r);
        Vec3 difference = vectors[pair.i]-vectors[pair.j];
        double along = direction.dot(difference);
        if (hessianProduct != nullptr) {
            double slope = (a[1]+t*(2*a[2]+t*3*a[3]))/h, curvature = (2*a[2]+6*a[3]*t)/(h*h);
            Vec3 product = difference*(slope/pair.r)+direction*(along*(curvature-slope/pair.r));
            hessianProduct[pair.i] += product;
            hessianProduct[pair.j] -= product;
        }
        double weight = -along/h; // of dB_k/dt, as the force is -u'(r) times the direction
        SplineTable::Row& m = moments[pair.row];
        m[1] += weight;
        m[2] += weight*2*t;
        m[3] += weight*3*t*t;
    });
    if (parameterProduct != nullptr)
        table->toCoefficients(moments, parameterProduct);
}

// OpenMM's kernels of this platform make one for each evaluation.
bool ReferenceCalcSplinePairForceKernel::hasNewNeighborLists(ContextImpl& context) {
    return true;
}
