/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_FLUID_H_
#define OPENMM_DIFFSIM_FLUID_H_

#include "SplinePairForce.h"
#include "openmm/HarmonicBondForce.h"
#include "openmm/System.h"
#include "openmm/Vec3.h"
#include <cmath>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace DiffSim {

/**
 * A fluid for the tests and, in a few plain loops, all that the force should say about it: splines by their definition, the
 * nearest image by trying all of them.
 */
class Fluid {
public:
    typedef std::vector<OpenMM::Vec3> Vectors;
    typedef std::vector<std::vector<double> > Coefficients;
    enum Box {None, Rectangular, Triclinic};

    /** Two types and some particles that do not interact, coefficients of order one, and a few exclusions. */
    explicit Fluid(Box kind, int numParticles = 40) : periodic(kind != None) {
        std::mt19937 generator(1+kind);
        auto uniform = [&] { return generator()/4294967296.0; };
        if (kind == Triclinic)
            box = {OpenMM::Vec3(1.5, 0, 0), OpenMM::Vec3(0.6, 1.4, 0), OpenMM::Vec3(-0.5, 0.6, 1.6)};
        else
            box = {OpenMM::Vec3(1.5, 0, 0), OpenMM::Vec3(0, 1.4, 0), OpenMM::Vec3(0, 0, 1.6)};
        while ((int) positions.size() < numParticles) {
            OpenMM::Vec3 r = box[0]*uniform()+box[1]*uniform()+box[2]*uniform();
            bool isApart = true;
            for (const OpenMM::Vec3& other : positions)
                isApart = isApart && norm(nearestImage(r-other, box)) > 0.15;
            if (isApart)
                positions.push_back(r);
        }
        for (int i = 0; i < numParticles; i++) {
            types.push_back(i%5 == 4 ? -1 : i%2);
            masses.push_back(10.0+i%3);
        }
        for (int i = 0; i < 12; i += 3)
            exclusions.insert({i, i+1});
        for (int p = 0; p < 3; p++) {
            coefficients.push_back({});
            for (int k = 0; k < NUM_KNOTS-2; k++)
                coefficients[p].push_back(2*uniform()-1);
        }
    }
    SplinePairForce* makeForce() const {
        SplinePairForce* force = new SplinePairForce(2, R_MIN, CUTOFF, NUM_KNOTS);
        for (int i = 0, p = 0; i < 2; i++)
            for (int j = i; j < 2; j++)
                force->setTypePairCoefficients(i, j, coefficients[p++]);
        for (int type : types)
            force->addParticle(type);
        for (auto& pair : exclusions)
            force->addExclusion(pair.first, pair.second);
        force->setNonbondedMethod(periodic ? SplinePairForce::CutoffPeriodic : SplinePairForce::CutoffNonPeriodic);
        return force;
    }
    /** Fill a System, which then owns the force; bonds without energy say what a molecule is. */
    SplinePairForce& addTo(OpenMM::System& system) const {
        for (double mass : masses)
            system.addParticle(mass);
        system.setDefaultPeriodicBoxVectors(box[0], box[1], box[2]);
        SplinePairForce* force = makeForce();
        system.addForce(force);
        if (bonds.size() > 0) {
            OpenMM::HarmonicBondForce* bonded = new OpenMM::HarmonicBondForce();
            for (auto& bond : bonds)
                bonded->addBond(bond.first, bond.second, 0.1, 0.0);
            system.addForce(bonded);
        }
        return *force;
    }
    double getEnergy(const Coefficients& c) const {
        double energy = 0;
        forEachPair([&] (int i, int j, const OpenMM::Vec3& delta, double r) {
            if (interact(i, j, r))
                energy += evaluate(c[types[i]+types[j]], r, false);
        });
        return energy;
    }
    Vectors getForces(const Coefficients& c) const {
        Vectors forces(positions.size());
        forEachPair([&] (int i, int j, const OpenMM::Vec3& delta, double r) {
            if (!interact(i, j, r))
                return;
            OpenMM::Vec3 force = delta*(-evaluate(c[types[i]+types[j]], r, true)/r);
            forces[i] += force;
            forces[j] -= force;
        });
        return forces;
    }
    /** All coefficients zero but one. */
    Coefficients getUnit(int pair, int k) const {
        Coefficients unit(3, std::vector<double>(NUM_KNOTS-2, 0.0));
        unit[pair][k] = 1;
        return unit;
    }
    /** Energies or whatever is linear in the coefficients, of each unit coefficient. */
    template <class Function>
    std::vector<double> forEachCoefficient(Function function) const {
        std::vector<double> values;
        for (int pair = 0; pair < 3; pair++)
            for (int k = 0; k < NUM_KNOTS-2; k++)
                values.push_back(function(getUnit(pair, k)));
        return values;
    }
    /** The same with the box and all molecules' centers scaled. */
    Fluid scaled(double factor) const {
        Fluid other(*this);
        for (OpenMM::Vec3& vector : other.box)
            vector *= factor;
        for (OpenMM::Vec3& r : other.positions)
            r *= factor;
        for (auto& bond : bonds) {
            OpenMM::Vec3 half = (positions[bond.first]-positions[bond.second])*0.5*(1-factor);
            other.positions[bond.first] += half;
            other.positions[bond.second] -= half;
        }
        return other;
    }
    Fluid moved(const Vectors& direction, double distance) const {
        Fluid other(*this);
        for (size_t i = 0; i < positions.size(); i++)
            other.positions[i] += direction[i]*distance;
        return other;
    }
    /** function(i, j, r_i-r_j, distance) for i < j, whatever the distance. */
    template <class Function>
    void forEachPair(Function function) const {
        for (int i = 0; i < (int) positions.size(); i++)
            for (int j = i+1; j < (int) positions.size(); j++) {
                OpenMM::Vec3 delta = positions[i]-positions[j];
                if (periodic)
                    delta = nearestImage(delta, box);
                function(i, j, delta, norm(delta));
            }
    }
    static double norm(const OpenMM::Vec3& r) {
        return std::sqrt(r.dot(r));
    }
    constexpr static double R_MIN = 0.2, CUTOFF = 0.6;
    constexpr static int NUM_KNOTS = 10;
    bool periodic;
    Vectors box, positions;
    std::vector<int> types;
    std::vector<double> masses;
    std::set<std::pair<int, int> > exclusions;
    std::vector<std::pair<int, int> > bonds;
    Coefficients coefficients; // of the pairs of types 00, 01, 11
private:
    bool interact(int i, int j, double r) const {
        return r < CUTOFF && types[i] >= 0 && types[j] >= 0 && exclusions.count({i, j}) == 0;
    }
    static OpenMM::Vec3 nearestImage(const OpenMM::Vec3& delta, const Vectors& box) {
        OpenMM::Vec3 nearest = delta;
        for (int x = -2; x <= 2; x++)
            for (int y = -2; y <= 2; y++)
                for (int z = -2; z <= 2; z++) {
                    OpenMM::Vec3 image = delta+box[0]*x+box[1]*y+box[2]*z;
                    if (image.dot(image) < nearest.dot(nearest))
                        nearest = image;
                }
        return nearest;
    }
    /** u or u'. */
    static double evaluate(const std::vector<double>& c, double r, bool isSlope) {
        double h = (CUTOFF-R_MIN)/(NUM_KNOTS-1), x = (r-R_MIN)/h;
        if (x < 0)
            return isSlope ? (c[1]-c[0])/h : c[0]+(c[1]-c[0])*x;
        auto at = [&] (int k) {
            return k < 0 ? 2*c[0]-c[1] : (k < NUM_KNOTS-2 ? c[k] : 0.0);
        };
        int i = (int) x;
        double t = x-i;
        if (isSlope)
            return (-(1-t)*(1-t)*at(i-1)+(3*t*t-4*t)*at(i)+(-3*t*t+2*t+1)*at(i+1)+t*t*at(i+2))/(2*h);
        return ((1-t)*(1-t)*(1-t)*at(i-1)+(3*t*t*t-6*t*t+4)*at(i)+(-3*t*t*t+3*t*t+3*t+1)*at(i+1)+t*t*t*at(i+2))/6;
    }
};

} // namespace DiffSim

#endif /*OPENMM_DIFFSIM_FLUID_H_*/
