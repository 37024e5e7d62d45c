/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "CpuSplinePairKernels.h"
#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

class CpuSplinePairKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(string name, const Platform& platform, ContextImpl& context) const {
        if (name == CalcSplinePairForceKernel::Name())
            return new CpuCalcSplinePairForceKernel(name, platform);
        throw OpenMMException("Tried to create kernel with illegal kernel name '"+name+"'");
    }
};

} // namespace

extern "C" OPENMM_EXPORT_DIFFSIM_PLUGIN void registerPlatforms() {
}

extern "C" OPENMM_EXPORT_DIFFSIM_PLUGIN void registerKernelFactories() {
    Platform::getPlatform("CPU").registerKernelFactory(CalcSplinePairForceKernel::Name(), new CpuSplinePairKernelFactory());
}
