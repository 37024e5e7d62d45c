#ifndef OPENMM_DIFFSIM_SPLINEPAIRFORCEPROXY_H_
#define OPENMM_DIFFSIM_SPLINEPAIRFORCEPROXY_H_

#include "openmm/serialization/SerializationProxy.h"

namespace DiffSim {

/**
 * Writes a SplinePairForce to XML and reads it back.
 */
class SplinePairForceProxy : public OpenMM::SerializationProxy {
public:
    SplinePairForceProxy();
    void serialize(const void* object, OpenMM::SerializationNode& node) const;
    void* deserialize(const OpenMM::SerializationNode& node) const;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_SPLINEPAIRFORCEPROXY_H_*/
