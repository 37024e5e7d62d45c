/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

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
