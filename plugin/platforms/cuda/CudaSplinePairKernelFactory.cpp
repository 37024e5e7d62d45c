#include "CommonSplinePairKernels.h"
#include "openmm/cuda/CudaPlatform.h"
#include "openmm/KernelFactory.h"
#include "openmm/OpenMMException.h"

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {

// CudaContext has ComputeContext as its first and only base class, so a pointer to one is a pointer to the other. To see the
// whole class would take CUDA's own headers, which few machines have.
ComputeContext& asComputeContext(CudaContext* context) {
    return *reinterpret_cast<ComputeContext*>(context);
}

class CudaSplinePairKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(string name, const Platform& platform, ContextImpl& context) const {
        if (name != CalcSplinePairForceKernel::Name())
            throw OpenMMException("Tried to create kernel with illegal kernel name '"+name+"'");
        vector<CudaContext*>& contexts = static_cast<CudaPlatform::PlatformData*>(context.getPlatformData())->contexts;
        if (contexts.size() != 1)
            throw OpenMMException("SplinePairForce: expected one device, got "+to_string(contexts.size())+": name one in DeviceIndex");
        return new CommonCalcSplinePairForceKernel(name, platform, asComputeContext(contexts[0]));
    }
};

} // namespace

extern "C" __attribute__((visibility("default"))) void registerPlatforms() {
}

extern "C" __attribute__((visibility("default"))) void registerKernelFactories() {
    Platform::getPlatform("CUDA").registerKernelFactory(CalcSplinePairForceKernel::Name(), new CudaSplinePairKernelFactory());
}
