/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "SegmentPropagator.h"
#include "internal/ChainPropagator.h"
#include "internal/SegmentAdjoint.h"
#include "internal/SegmentIntegrator.h"
#include "internal/SegmentMasses.h"
#include "internal/SplinePairForceImpl.h"
#include "internal/refuse.h"

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

void ChainThermostat::check() const {
    ChainPropagator(*this, 1.0);
}

SegmentPropagator::SegmentPropagator(Context& context, const SplinePairForce& force, const StepSplitting& splitting,
        const ChainThermostat* thermostat, const Vec3* fixedBox) : context(context), force(force), splitting(splitting),
        masses(new SegmentMasses(context.getSystem())) {
    if (thermostat != nullptr && splitting.kick2 != 0)
        refuse("a Nose-Hoover chain needs steps of the form (dt, dt/2, any scale, dt/2, 0), got a last kick of ", splitting.kick2,
                " ps");
    if (thermostat != nullptr)
        chain.reset(new ChainPropagator(*thermostat, splitting.drift1+splitting.drift2));
    if (fixedBox != nullptr)
        box.assign(fixedBox, fixedBox+3);
}

SegmentPropagator::~SegmentPropagator() {
}

void SegmentPropagator::integrate(const Segment& segment, const Vec3* noise) {
    ContextImpl& impl = force.getContextImpl(context);
    SplinePairForceImpl& forceImpl = force.getImpl(context);
    if (chain != nullptr && noise != nullptr)
        refuse("a segment with a Nose-Hoover chain has no noise");
    Vec3 runBox[3];
    forceImpl.findBox(impl, box.empty() ? nullptr : box.data(), runBox);
    forceImpl.checkFinite(segment.positions, "positions, time", 0);
    forceImpl.checkFinite(segment.velocities, "velocities, time", 0);
    for (int step = 0; noise != nullptr && step < segment.numSteps; step++)
        forceImpl.checkFinite(noise+(size_t) step*masses->getNumParticles(), "noise, step", step);
    SegmentIntegrator integrator(impl, forceImpl.getKernel(), *masses, splitting, chain.get(), runBox);
    try {
        integrator.run(segment, noise);
    }
    catch (...) {
        integrator.restore();
        throw;
    }
    integrator.restore();
}

SegmentGradient SegmentPropagator::computeGradient(const StoredSegment& segment, const Vec3* positionGradients,
        const Vec3* velocityGradients, const SegmentGradientOptions& options) {
    ContextImpl& impl = force.getContextImpl(context);
    SplinePairForceImpl& forceImpl = force.getImpl(context);
    if (chain != nullptr && (segment.velocities == nullptr || segment.chainStates == nullptr))
        refuse("with a Nose-Hoover chain, the gradient of a segment needs its velocities and the chain's states");
    if (options.truncation < 0)
        refuse("expected a truncation of at least 1 step, or 0 for none, got ", options.truncation);
    if (options.clipping != 0 && !(options.clipping >= 1))
        refuse("expected a clipping of at least 1, or 0 for none, got ", options.clipping);
    PairConfiguration configuration;
    forceImpl.findBox(impl, box.empty() ? nullptr : box.data(), configuration.box);
    for (int t = 0; t <= segment.numSteps; t++) {
        size_t first = (size_t) t*masses->getNumParticles();
        forceImpl.checkFinite(segment.positions+first, "time", t);
        if (chain != nullptr)
            forceImpl.checkFinite(segment.velocities+first, "velocities, time", t);
    }
    auto products = [&] (int time, const Vec3* weights, Vec3* hessianProduct, double* parameterProduct) {
        configuration.positions = segment.positions+(size_t) time*masses->getNumParticles();
        forceImpl.getKernel().computeProducts(impl, configuration, weights, hessianProduct, parameterProduct);
    };
    SegmentAdjoint adjoint(*masses, splitting, chain.get(), segment, options, products);
    return adjoint.run(positionGradients, velocityGradients, force.getNumTypePairs()*force.getNumCoefficients());
}
