/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_REFUSE_H_
#define OPENMM_DIFFSIM_REFUSE_H_

#include "openmm/OpenMMException.h"
#include <sstream>

namespace DiffSim {

/**
 * Throw an OpenMMException whose message is made of all the parts.
 */
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    std::stringstream message;
    message << "SplinePairForce: ";
    (message << ... << parts);
    throw OpenMM::OpenMMException(message.str());
}

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_REFUSE_H_*/
