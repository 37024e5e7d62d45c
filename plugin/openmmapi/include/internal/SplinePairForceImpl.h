/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_SPLINEPAIRFORCEIMPL_H_
#define OPENMM_DIFFSIM_SPLINEPAIRFORCEIMPL_H_

#include "SplinePairForce.h"
#include "SplinePairKernels.h"
#include "openmm/Kernel.h"
#include "openmm/internal/ForceImpl.h"
#include <map>
#include <string>
#include <vector>

namespace DiffSim {

/**
 * The SplinePairForce of one Context. Whatever is the same on all platforms is done here: checks, loops over frames,
 * and centers of molecules.
 */
class SplinePairForceImpl : public OpenMM::ForceImpl {
public:
    SplinePairForceImpl(const SplinePairForce& owner);
    void initialize(OpenMM::ContextImpl& context);
    const SplinePairForce& getOwner() const {
        return owner;
    }
    void updateContextState(OpenMM::ContextImpl& context, bool& forcesInvalid) {
    }
    double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy, int groups);
    std::map<std::string, double> getDefaultParameters() {
        return std::map<std::string, double>();
    }
    std::vector<std::string> getKernelNames();
    void updateParametersInContext(OpenMM::ContextImpl& context);
    void computeSums(OpenMM::ContextImpl& context, const PairFrames& frames, PairSums& sums);
    void computeProducts(OpenMM::ContextImpl& context, const PairFrames& frames, const OpenMM::Vec3* vectors,
            OpenMM::Vec3* hessianProduct, double* parameterProduct);
    CalcSplinePairForceKernel& getKernel();
    /** The given box, or that of the Context where none is given; refused where the cutoff is too long for it. */
    void findBox(OpenMM::ContextImpl& context, const OpenMM::Vec3* given, OpenMM::Vec3* box) const;
    /** Refuses vectors, one for each particle, that are not finite. */
    void checkFinite(const OpenMM::Vec3* vectors, const char* what, int index) const;
private:
    void checkBox(const OpenMM::Vec3* box) const;
    void checkHistogram(const PairHistogram& histogram, const OpenMM::Vec3* box) const;
    void findMolecules(OpenMM::ContextImpl& context);
    void findOffsets(const OpenMM::Vec3* positions);
    template <class Function>
    void forEachFrame(OpenMM::ContextImpl& context, const PairFrames& frames, Function function);
    const SplinePairForce& owner;
    OpenMM::Kernel kernel;
    int numParticles;
    bool periodic; // this and the cutoff are as when the Context was made, whatever becomes of the owner
    double cutoff;
    bool hasMolecules, foundMolecules;
    std::vector<std::vector<int> > molecules;
    std::vector<OpenMM::Vec3> offsets;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SPLINEPAIRFORCEIMPL_H_*/
