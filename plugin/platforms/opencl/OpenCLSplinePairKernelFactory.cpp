#include "CommonSplinePairKernelFactory.h"
#include "SplinePairKernels.h"
#include "openmm/Platform.h"

using namespace DiffSim;
using namespace OpenMM;

extern "C" OPENMM_EXPORT_DIFFSIM_PLUGIN void registerPlatforms() {
}

extern "C" OPENMM_EXPORT_DIFFSIM_PLUGIN void registerKernelFactories() {
    Platform::getPlatform("OpenCL").registerKernelFactory(CalcSplinePairForceKernel::Name(), new CommonSplinePairKernelFactory());
}
