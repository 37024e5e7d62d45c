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
