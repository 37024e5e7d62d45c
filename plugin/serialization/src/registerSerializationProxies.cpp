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
