#include "CommonSplinePairKernelFactory.h"
#include "openmm/opencl/OpenCLPlatform.h"

using namespace DiffSim;
using namespace OpenMM;

extern "C" __attribute__((visibility("default"))) void registerPlatforms() {
}

extern "C" __attribute__((visibility("default"))) void registerKernelFactories() {
    Platform::getPlatform("OpenCL").registerKernelFactory(CalcSplinePairForceKernel::Name(),
            new CommonSplinePairKernelFactory<OpenCLPlatform::PlatformData>());
}
