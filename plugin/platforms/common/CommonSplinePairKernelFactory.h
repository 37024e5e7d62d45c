#ifndef OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELFACTORY_H_
#define OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELFACTORY_H_

#include "CommonSplinePairKernels.h"
#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"
#include <string>

namespace DiffSim {

/**
 * Makes the kernel for a platform of GPUs, given the class of its PlatformData.
 */
template <class PlatformData>
class CommonSplinePairKernelFactory : public OpenMM::KernelFactory {
public:
    OpenMM::KernelImpl* createKernelImpl(std::string name, const OpenMM::Platform& platform, OpenMM::ContextImpl& context) const {
        if (name != CalcSplinePairForceKernel::Name())
            throw OpenMM::OpenMMException("Tried to create kernel with illegal kernel name '"+name+"'");
        auto& contexts = static_cast<PlatformData*>(context.getPlatformData())->contexts;
        if (contexts.size() != 1)
            throw OpenMM::OpenMMException("SplinePairForce: expected one device, got "+std::to_string(contexts.size())+
                    ": name one in DeviceIndex");

        // A platform's own context has ComputeContext as its first and only base class, so a pointer to one is a pointer to the
        // other. To see the whole class would take headers of the vendor, which few machines have.

        return new CommonCalcSplinePairForceKernel(name, platform, *reinterpret_cast<OpenMM::ComputeContext*>(contexts[0]));
    }
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_COMMONSPLINEPAIRKERNELFACTORY_H_*/
