#include "CommonSplinePairKernelFactory.h"
#include "openmm/cuda/CudaPlatform.h"

using namespace DiffSim;
using namespace OpenMM;

extern "C" __attribute__((visibility("default"))) void registerPlatforms() {
}

extern "C" __attribute__((visibility("default"))) void registerKernelFactories() {
    Platform::getPlatform("CUDA").registerKernelFactory(CalcSplinePairForceKernel::Name(),
            new CommonSplinePairKernelFactory<CudaPlatform::PlatformData>());
}
