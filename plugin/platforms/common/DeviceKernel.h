/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_DEVICEKERNEL_H_
#define OPENMM_DIFFSIM_DEVICEKERNEL_H_

#include "openmm/Vec3.h"
#include "openmm/common/ComputeContext.h"
#include <string>

namespace DiffSim {

/**
 * A kernel on the device, called like a function. Floating point numbers become those of type "mixed".
 */
class DeviceKernel {
public:
    void create(OpenMM::ComputeContext& cc, OpenMM::ComputeProgram program, const std::string& name) {
        kernel = program->createKernel(name);
        mixedIsDouble = (cc.getUseDoublePrecision() || cc.getUseMixedPrecision());
    }
    bool isCreated() const {
        return kernel != nullptr;
    }
    template <class... Arguments>
    void execute(int numThreads, Arguments&&... arguments) {
        index = 0;
        (set(arguments), ...);
        kernel->execute(numThreads);
    }
private:
    template <class T>
    void pass(T& argument) {
        if (index == numArguments) {
            kernel->addArg(argument);
            numArguments++;
        }
        else
            kernel->setArg(index, argument);
        index++;
    }
    void set(OpenMM::ArrayInterface& array) {
        pass(array);
    }
    void set(int value) {
        pass(value);
    }
    void set(const int* three) {
        OpenMM::mm_int4 value(three[0], three[1], three[2], 0);
        pass(value);
    }
    void set(double value) {
        float single = (float) value;
        mixedIsDouble ? pass(value) : pass(single);
    }
    void set(const OpenMM::Vec3& v) {
        OpenMM::mm_double4 value(v[0], v[1], v[2], 0);
        OpenMM::mm_float4 single((float) v[0], (float) v[1], (float) v[2], 0);
        mixedIsDouble ? pass(value) : pass(single);
    }
    OpenMM::ComputeKernel kernel;
    int index = 0, numArguments = 0;
    bool mixedIsDouble = false;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_DEVICEKERNEL_H_*/
