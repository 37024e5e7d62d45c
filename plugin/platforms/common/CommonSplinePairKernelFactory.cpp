/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "CommonSplinePairKernelFactory.h"
#include "CommonSplinePairKernels.h"
#include "internal/refuse.h"
#include "openmm/Kernel.h"
#include "openmm/OpenMMException.h"
#include "openmm/common/CommonKernels.h"

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

// A platform's own class of ComputeContext is declared in a header that takes CUDA's or OpenCL's own, which few machines have.
// But the platform's kernel for a CustomCVForce gives the ComputeContext of any Context of the platform.
ComputeContext& findComputeContext(const Platform& platform, ContextImpl& context) {
    Kernel kernel = platform.createKernel(CalcCustomCVForceKernel::Name(), context);
    return kernel.getAs<CommonCalcCustomCVForceKernel>().getInnerComputeContext(context);
}

} // namespace

KernelImpl* CommonSplinePairKernelFactory::createKernelImpl(string name, const Platform& platform, ContextImpl& context) const {
    if (name != CalcSplinePairForceKernel::Name())
        throw OpenMMException("Tried to create kernel with illegal kernel name '"+name+"'");
    ComputeContext& cc = findComputeContext(platform, context);
    if (cc.getNumContexts() != 1)
        refuse("a Context with this force runs on one device, but it was given ", cc.getNumContexts(), "; name a single one in the ",
                "platform's property DeviceIndex, and make a Context for each device to use several");
    return new CommonCalcSplinePairForceKernel(name, platform, cc);
}
