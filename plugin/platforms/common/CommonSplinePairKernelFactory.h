/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELFACTORY_H_
#define OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELFACTORY_H_

#include "openmm/KernelFactory.h"
#include <string>

namespace DiffSim {

/**
 * Makes the kernel for the platforms of GPUs. Contexts that spread over several devices are refused.
 */
class CommonSplinePairKernelFactory : public OpenMM::KernelFactory {
public:
    OpenMM::KernelImpl* createKernelImpl(std::string name, const OpenMM::Platform& platform, OpenMM::ContextImpl& context) const;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELFACTORY_H_*/
