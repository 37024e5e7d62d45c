/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_CHAINPROPAGATOR_H_
#define OPENMM_DIFFSIM_CHAINPROPAGATOR_H_

#include "SegmentPropagator.h"
#include <cmath>
#include <valarray>
#include <vector>

namespace DiffSim {

/**
 * A number and its derivatives with respect to some variables, which arithmetic carries along. All numbers that meet have
 * the same variables.
 */
struct Dual {
    double value;
    std::valarray<double> slopes;
};

inline Dual operator+(const Dual& a, const Dual& b) {
    return {a.value+b.value, a.slopes+b.slopes};
}

inline Dual operator+(const Dual& a, double b) {
    return {a.value+b, a.slopes};
}

inline Dual operator*(const Dual& a, const Dual& b) {
    return {a.value*b.value, a.slopes*b.value+b.slopes*a.value};
}

inline Dual operator*(const Dual& a, double b) {
    return {a.value*b, a.slopes*b};
}

using std::exp; // which that of dual numbers would hide

inline Dual exp(const Dual& a) {
    double value = std::exp(a.value);
    return {value, a.slopes*value};
}

/**
 * Propagates a chain by one step of the integrator.
 *
 * With Q_0 = n kT/w^2 and Q_j = kT/w^2 for n degrees of freedom and the frequency w, the operator of Martyna, Tuckerman,
 * Tobias and Klein, Mol. Phys. 87, 1117 (1996), is split by Yoshida-Suzuki weights and multiple time steps, as OpenMM's
 * NoseHooverIntegrator splits it. Each part kicks the thermostats from the last to the first, scales the particles'
 * velocities by exp(-dt v_0), drifts the thermostats, and kicks them from the first to the last.
 */
class ChainPropagator {
public:
    ChainPropagator(const ChainThermostat& chain, double timeStep);
    int getLength() const {
        return length;
    }
    /**
     * @param kineticEnergy   of the particles, in kJ/mol
     * @param state           positions and velocities of the thermostats, propagated in place
     * @return what the particles' velocities are scaled by
     */
    double propagate(double kineticEnergy, double* state) const;
    /**
     * Carry a gradient back through propagate().
     *
     * @param kineticEnergy        as it was there
     * @param state                as it was before
     * @param scaleGradient        dL/d(scale)
     * @param velocityGradients    dL/d(thermostats' velocities): on input of those after, on output of those before
     * @return dL/d(kineticEnergy)
     */
    double carryBack(double kineticEnergy, const double* state, double scaleGradient, std::vector<double>& velocityGradients) const;
private:
    template <class Number>
    Number propagate(const Number& kineticEnergy, std::vector<Number>& positions, std::vector<Number>& velocities) const;
    template <class Number>
    void kick(int bead, double time, const Number& scaledEnergy, std::vector<Number>& velocities) const;
    int length;
    double kT, energyAtRest; // the kinetic energy at which the first thermostat feels no force
    std::vector<double> masses, timeSteps;
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_CHAINPROPAGATOR_H_*/
