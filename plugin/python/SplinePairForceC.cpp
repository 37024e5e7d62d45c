/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

/*
 * A C interface for Python's ctypes: plain pointers and numbers, NumPy's own memory in and out, no dependence on the
 * version of Python. A call returns 0, or 1 after an exception, whose message DiffSim_getError() then gives. A null
 * pointer stands for an argument that is left out.
 */
#include "SegmentPropagator.h"
#include "SplinePairForce.h"
#include "openmm/Context.h"
#include "openmm/OpenMMException.h"
#include <algorithm>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

thread_local string lastError;

int guarded(const function<void ()>& body) {
    try {
        body();
        return 0;
    }
    catch (const exception& e) {
        lastError = e.what();
    }
    catch (...) {
        lastError = "SplinePairForce: an unknown exception";
    }
    return 1;
}

SplinePairForce& asSpline(Force* force) {
    SplinePairForce* spline = dynamic_cast<SplinePairForce*>(force);
    if (spline == nullptr)
        throw OpenMMException("SplinePairForce: expected a SplinePairForce, got another Force");
    return *spline;
}

const Vec3* asVectors(const double* numbers) {
    static_assert(sizeof(Vec3) == 3*sizeof(double), "a Vec3 is expected to be three doubles");
    return reinterpret_cast<const Vec3*>(numbers);
}

/** The numbers are in the order of a chain's members. */
optional<ChainThermostat> asChain(const double* numbers) {
    if (numbers == nullptr)
        return nullopt;
    return ChainThermostat{numbers[0], numbers[1], (int) numbers[2], (int) numbers[3], (int) numbers[4], (int) numbers[5]};
}

/** The splitting is kick1, drift1, scale, drift2, kick2; chain and box may be null. */
SegmentPropagator makePropagator(Force* force, Context* context, const double* splitting, const double* chain, const double* box) {
    optional<ChainThermostat> thermostat = asChain(chain);
    return SegmentPropagator(*context, asSpline(force), {splitting[0], splitting[1], splitting[2], splitting[3], splitting[4]},
            thermostat ? &*thermostat : nullptr, asVectors(box));
}

} // namespace

#define EXPORT extern "C" OPENMM_EXPORT_DIFFSIM

EXPORT const char* DiffSim_getError() {
    return lastError.c_str();
}

EXPORT int DiffSim_isSplinePairForce(Force* force) {
    return dynamic_cast<SplinePairForce*>(force) != nullptr;
}

/** numTypes, numKnots, numParticles, numExclusions, nonbonded method; rMin and cutoff in nm. */
EXPORT int DiffSim_describe(Force* force, int* integers, double* lengths) {
    return guarded([&] {
        SplinePairForce& spline = asSpline(force);
        integers[0] = spline.getNumTypes();
        integers[1] = spline.getNumKnots();
        integers[2] = spline.getNumParticles();
        integers[3] = spline.getNumExclusions();
        integers[4] = spline.getNonbondedMethod();
        lengths[0] = spline.getRMin();
        lengths[1] = spline.getCutoffDistance();
    });
}

/** Checks the arguments of the constructor. */
EXPORT int DiffSim_checkArguments(int numTypes, double rMin, double cutoff, int numKnots) {
    return guarded([&] {
        SplinePairForce(numTypes, rMin, cutoff, numKnots);
    });
}

EXPORT int DiffSim_getCoefficients(Force* force, int type1, int type2, double* coefficients) {
    return guarded([&] {
        const vector<double>& values = asSpline(force).getTypePairCoefficients(type1, type2);
        copy(values.begin(), values.end(), coefficients);
    });
}

EXPORT int DiffSim_setCoefficients(Force* force, int type1, int type2, int count, const double* coefficients) {
    return guarded([&] {
        asSpline(force).setTypePairCoefficients(type1, type2, vector<double>(coefficients, coefficients+count));
    });
}

EXPORT int DiffSim_addParticles(Force* force, int count, const int* types) {
    return guarded([&] {
        SplinePairForce& spline = asSpline(force);
        for (int i = 0; i < count; i++)
            spline.addParticle(types[i]);
    });
}

EXPORT int DiffSim_getTypes(Force* force, int* types) {
    return guarded([&] {
        const vector<int>& values = asSpline(force).getParticleTypes();
        copy(values.begin(), values.end(), types);
    });
}

EXPORT int DiffSim_getType(Force* force, int index, int* type) {
    return guarded([&] {
        *type = asSpline(force).getParticleType(index);
    });
}

EXPORT int DiffSim_setType(Force* force, int index, int type) {
    return guarded([&] {
        asSpline(force).setParticleType(index, type);
    });
}

EXPORT int DiffSim_addExclusions(Force* force, int count, const int* pairs) {
    return guarded([&] {
        SplinePairForce& spline = asSpline(force);
        for (int i = 0; i < count; i++)
            spline.addExclusion(pairs[2*i], pairs[2*i+1]);
    });
}

EXPORT int DiffSim_getExclusion(Force* force, int index, int* pair) {
    return guarded([&] {
        asSpline(force).getExclusionParticles(index, pair[0], pair[1]);
    });
}

EXPORT int DiffSim_setExclusion(Force* force, int index, int particle1, int particle2) {
    return guarded([&] {
        asSpline(force).setExclusionParticles(index, particle1, particle2);
    });
}

EXPORT int DiffSim_getExclusions(Force* force, int* pairs) {
    return guarded([&] {
        SplinePairForce& spline = asSpline(force);
        for (int i = 0; i < spline.getNumExclusions(); i++)
            spline.getExclusionParticles(i, pairs[2*i], pairs[2*i+1]);
    });
}

EXPORT int DiffSim_createExclusionsFromBonds(Force* force, int count, const int* bonds, int bondCutoff) {
    return guarded([&] {
        vector<pair<int, int> > pairs;
        for (int i = 0; i < count; i++)
            pairs.push_back({bonds[2*i], bonds[2*i+1]});
        asSpline(force).createExclusionsFromBonds(pairs, bondCutoff);
    });
}

EXPORT int DiffSim_setNonbondedMethod(Force* force, int method) {
    return guarded([&] {
        asSpline(force).setNonbondedMethod((SplinePairForce::NonbondedMethod) method);
    });
}

EXPORT int DiffSim_updateParametersInContext(Force* force, Context* context) {
    return guarded([&] {
        asSpline(force).updateParametersInContext(*context);
    });
}

/**
 * Histogram h has numEdges[h] edges and, where groups[h] is not null, groups. Its counts are those of the first frame, of
 * the second, and so on.
 */
EXPORT int DiffSim_computeSums(Force* force, Context* context, int numFrames, const double* positions, const double* boxes,
        double* basis, double* virial, int numHistograms, const int* numEdges, const double* const* edges,
        const int* const* selections, const int* const* groups, long long* const* counts) {
    return guarded([&] {
        SplinePairForce& spline = asSpline(force);
        PairSums sums;
        sums.includeBasis = (basis != nullptr);
        sums.includeVirial = (virial != nullptr);
        int numParticles = spline.getNumParticles();
        for (int h = 0; h < numHistograms; h++) {
            PairHistogram histogram;
            histogram.edges.assign(edges[h], edges[h]+numEdges[h]);
            histogram.selections.assign(selections[h], selections[h]+numParticles);
            if (groups[h] != nullptr)
                histogram.groups.assign(groups[h], groups[h]+numParticles);
            sums.histograms.push_back(histogram);
        }
        PairFrames frames;
        frames.numFrames = numFrames;
        frames.positions = asVectors(positions);
        frames.boxes = asVectors(boxes);
        spline.computeSums(*context, frames, sums);
        copy(sums.basis.begin(), sums.basis.end(), basis);
        copy(sums.virial.begin(), sums.virial.end(), virial);
        for (int h = 0; h < numHistograms; h++)
            copy(sums.counts[h].begin(), sums.counts[h].end(), counts[h]);
    });
}

EXPORT int DiffSim_computeProducts(Force* force, Context* context, int numFrames, const double* positions, const double* boxes,
        const double* vectors, double* hessianProduct, double* parameterProduct) {
    return guarded([&] {
        PairFrames frames;
        frames.numFrames = numFrames;
        frames.positions = asVectors(positions);
        frames.boxes = asVectors(boxes);
        asSpline(force).computeProducts(*context, frames, asVectors(vectors), reinterpret_cast<Vec3*>(hessianProduct),
                parameterProduct);
    });
}

/** Checks the numbers of a chain. */
EXPORT int DiffSim_checkChain(const double* chain) {
    return guarded([&] {
        asChain(chain)->check();
    });
}

EXPORT int DiffSim_integrateSegment(Force* force, Context* context, const double* splitting, const double* chain, const double* box,
        int numSteps, double* positions, double* velocities, const double* noise, double* chainStates) {
    return guarded([&] {
        makePropagator(force, context, splitting, chain, box).integrate({numSteps, reinterpret_cast<Vec3*>(positions),
                reinterpret_cast<Vec3*>(velocities), chainStates}, asVectors(noise));
    });
}

/** The noise may be null, and without a chain whatever is of it. */
EXPORT int DiffSim_computeSegmentGradient(Force* force, Context* context, const double* splitting, const double* chain,
        const double* box, int numSteps, const double* positions, const double* velocities, const double* chainStates,
        const double* positionGradients, const double* velocityGradients, int truncation, double clipping, double* parameters,
        double* initialPositions, double* initialVelocities, double* growth, double* noise, double* chainState) {
    return guarded([&] {
        SegmentGradientOptions options;
        options.includeNoise = (noise != nullptr);
        options.truncation = truncation;
        options.clipping = clipping;
        SegmentGradient gradient = makePropagator(force, context, splitting, chain, box).computeGradient({numSteps,
                asVectors(positions), asVectors(velocities), chainStates}, asVectors(positionGradients),
                asVectors(velocityGradients), options);
        copy(gradient.parameters.begin(), gradient.parameters.end(), parameters);
        copy(gradient.positions.begin(), gradient.positions.end(), reinterpret_cast<Vec3*>(initialPositions));
        copy(gradient.velocities.begin(), gradient.velocities.end(), reinterpret_cast<Vec3*>(initialVelocities));
        copy(gradient.growth.begin(), gradient.growth.end(), growth);
        copy(gradient.noise.begin(), gradient.noise.end(), reinterpret_cast<Vec3*>(noise));
        copy(gradient.chainState.begin(), gradient.chainState.end(), chainState);
    });
}
