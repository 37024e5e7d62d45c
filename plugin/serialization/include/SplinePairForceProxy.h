/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

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
