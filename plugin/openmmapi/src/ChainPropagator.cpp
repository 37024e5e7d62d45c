/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "internal/ChainPropagator.h"
#include "internal/refuse.h"
#include "openmm/reference/SimTKOpenMMRealType.h"
#include <algorithm>

using namespace DiffSim;
using namespace std;

namespace {

// Below, OpenMM lets the chain rest: there is nothing to scale.
const double LEAST_KINETIC_ENERGY = 1e-8; // kJ/mol

vector<double> getYoshidaSuzukiWeights(int number) {
    if (number == 1)
        return {1};
    if (number == 3)
        return {0.828981543588751, -0.657963087177502, 0.828981543588751};
    if (number == 5)
        return {0.2967324292201065, 0.2967324292201065, -0.186929716880426, 0.2967324292201065, 0.2967324292201065};
    if (number == 7)
        return {0.784513610477560, 0.235573213359357, -1.17767998417887, 1.31518632068391, -1.17767998417887, 0.235573213359357,
                0.784513610477560};
    refuse("a Nose-Hoover chain: expected 1, 3, 5 or 7 Yoshida-Suzuki weights, got ", number);
}

} // namespace

ChainPropagator::ChainPropagator(const ChainThermostat& chain, double timeStep) : length(chain.length) {
    if (!(chain.temperature > 0 && isfinite(chain.temperature)))
        refuse("a Nose-Hoover chain: expected a temperature above zero, got ", chain.temperature, " K");
    if (!(chain.frequency > 0 && isfinite(chain.frequency)))
        refuse("a Nose-Hoover chain: expected a frequency above zero, got ", chain.frequency, " 1/ps");
    if (chain.degreesOfFreedom < 1 || chain.length < 1 || chain.multipleTimeSteps < 1)
        refuse("a Nose-Hoover chain: expected at least 1 degree of freedom, thermostat and time step, got ",
                chain.degreesOfFreedom, ", ", chain.length, " and ", chain.multipleTimeSteps);
    kT = BOLTZ*chain.temperature;
    energyAtRest = 0.5*chain.degreesOfFreedom*kT;
    masses.assign(length, kT/(chain.frequency*chain.frequency));
    masses[0] *= chain.degreesOfFreedom;
    vector<double> weights = getYoshidaSuzukiWeights(chain.yoshidaSuzuki);
    for (int i = 0; i < chain.multipleTimeSteps; i++)
        for (double weight : weights)
            timeSteps.push_back(weight*timeStep/chain.multipleTimeSteps);
}

// A kick by the force on one thermostat, between two halves of its friction with the next.
template <class Number>
void ChainPropagator::kick(int bead, double time, const Number& scaledEnergy, vector<Number>& velocities) const {
    Number& v = velocities[bead];
    Number force = (bead == 0 ? (scaledEnergy+(-energyAtRest))*(2/masses[0]) :
            (velocities[bead-1]*velocities[bead-1]*masses[bead-1]+(-kT))*(1/masses[bead]));
    if (bead == length-1) {
        v = v+force*time;
        return;
    }
    Number friction = exp(velocities[bead+1]*(-0.5*time));
    v = friction*(friction*v+force*time);
}

template <class Number>
Number ChainPropagator::propagate(const Number& kineticEnergy, vector<Number>& positions, vector<Number>& velocities) const {
    Number scale = kineticEnergy*0.0+1.0; // a constant, with as many derivatives
    Number scaledEnergy = kineticEnergy;
    for (double time : timeSteps) {
        for (int bead = length-1; bead >= 0; bead--)
            kick(bead, 0.5*time, scaledEnergy, velocities);
        scale = scale*exp(velocities[0]*(-time));
        scaledEnergy = scale*scale*kineticEnergy;
        for (int bead = 0; bead < length; bead++)
            positions[bead] = positions[bead]+velocities[bead]*time;
        for (int bead = 0; bead < length; bead++)
            kick(bead, 0.5*time, scaledEnergy, velocities);
    }
    return scale;
}

double ChainPropagator::propagate(double kineticEnergy, double* state) const {
    if (kineticEnergy < LEAST_KINETIC_ENERGY)
        return 1.0;
    vector<double> positions(state, state+length), velocities(state+length, state+2*length);
    double scale = propagate(kineticEnergy, positions, velocities);
    copy(positions.begin(), positions.end(), state);
    copy(velocities.begin(), velocities.end(), state+length);
    return scale;
}

double ChainPropagator::carryBack(double kineticEnergy, const double* state, double scaleGradient,
        vector<double>& velocityGradients) const {
    if (kineticEnergy < LEAST_KINETIC_ENERGY)
        return 0.0;

    // The variables are the thermostats' velocities and, last, the kinetic energy. Nothing depends on the positions.

    valarray<double> none(length+1);
    vector<Dual> positions, velocities;
    for (int bead = 0; bead < length; bead++) {
        positions.push_back({state[bead], none});
        velocities.push_back({state[length+bead], none});
        velocities[bead].slopes[bead] = 1;
    }
    Dual energy = {kineticEnergy, none};
    energy.slopes[length] = 1;
    valarray<double> gradients = propagate(energy, positions, velocities).slopes*scaleGradient;
    for (int bead = 0; bead < length; bead++)
        gradients += velocities[bead].slopes*velocityGradients[bead];
    copy(begin(gradients), begin(gradients)+length, velocityGradients.begin());
    return gradients[length];
}
