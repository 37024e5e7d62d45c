/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_SEGMENTADJOINT_H_
#define OPENMM_DIFFSIM_SEGMENTADJOINT_H_

#include "SegmentPropagator.h"
#include "internal/ChainPropagator.h"
#include "internal/SegmentMasses.h"
#include <functional>
#include <vector>

namespace DiffSim {

/**
 * The recursion back through a stored segment. At each time it holds the adjoint: the gradient with respect to positions,
 * velocities and the state of a chain there, through all that follows.
 */
class SegmentAdjoint {
public:
    /**
     * SplinePairForce::computeProducts() at the positions of a time; the hessianProduct may be null.
     */
    typedef std::function<void (int time, const OpenMM::Vec3* weights, OpenMM::Vec3* hessianProduct, double* parameterProduct)> Products;
    SegmentAdjoint(const SegmentMasses& masses, const StepSplitting& splitting, const ChainPropagator* chain,
            const StoredSegment& segment, const SegmentGradientOptions& options, Products products);
    /**
     * Carry the gradient back from the last time; numSums is the number of parameters.
     */
    SegmentGradient run(const OpenMM::Vec3* positionGradients, const OpenMM::Vec3* velocityGradients, int numSums);
private:
    int findLast(const OpenMM::Vec3* positionGradients, const OpenMM::Vec3* velocityGradients) const;
    void visit(int time, const OpenMM::Vec3* positionGradients, const OpenMM::Vec3* velocityGradients);
    void addWeights(double kick);
    void applyForce(int time, bool toPositions);
    void stepBack(int time);
    void stepBackThroughChain(int time);
    void clear();
    void scale(double factor);
    void clip(double norm);
    double getNorm() const;
    const SegmentMasses& masses;
    StepSplitting splitting;
    const ChainPropagator* chain;
    StoredSegment segment;
    const SegmentGradientOptions& options;
    Products products;
    std::vector<OpenMM::Vec3> x, v; // the adjoint
    std::vector<double> thermostats; // the adjoint of their velocities
    std::vector<OpenMM::Vec3> weights, hessianProduct; // weights are dL/dF of the force at the present time
    std::vector<double> parameterProduct;
    int last;
    double bound; // of the norm; zero while there is none
    SegmentGradient gradient;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SEGMENTADJOINT_H_*/
