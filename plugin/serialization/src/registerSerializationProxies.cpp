/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "SplinePairForce.h"
#include "SplinePairForceProxy.h"
#include "openmm/serialization/SerializationProxy.h"

// Registers when the library is loaded.

namespace {

struct Registration {
    Registration() {
        OpenMM::SerializationProxy::registerProxy(typeid(DiffSim::SplinePairForce), new DiffSim::SplinePairForceProxy());
    }
} registration;

} // namespace
