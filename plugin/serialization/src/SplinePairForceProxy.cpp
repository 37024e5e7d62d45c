/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "SplinePairForceProxy.h"
#include "SplinePairForce.h"
#include "openmm/OpenMMException.h"
#include "openmm/serialization/SerializationNode.h"
#include <memory>
#include <string>
#include <vector>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

namespace {
const int VERSION = 1;
}

SplinePairForceProxy::SplinePairForceProxy() : SerializationProxy("SplinePairForce") {
}

void SplinePairForceProxy::serialize(const void* object, SerializationNode& node) const {
    const SplinePairForce& force = *reinterpret_cast<const SplinePairForce*>(object);
    node.setIntProperty("version", VERSION);
    node.setIntProperty("forceGroup", force.getForceGroup());
    node.setStringProperty("name", force.getName());
    node.setIntProperty("numTypes", force.getNumTypes());
    node.setDoubleProperty("rMin", force.getRMin());
    node.setDoubleProperty("cutoff", force.getCutoffDistance());
    node.setIntProperty("numKnots", force.getNumKnots());
    node.setIntProperty("method", (int) force.getNonbondedMethod());
    SerializationNode& splines = node.createChildNode("Splines");
    for (int i = 0; i < force.getNumTypes(); i++)
        for (int j = i; j < force.getNumTypes(); j++) {
            SerializationNode& spline = splines.createChildNode("Spline");
            spline.setIntProperty("type1", i);
            spline.setIntProperty("type2", j);
            for (double c : force.getTypePairCoefficients(i, j))
                spline.createChildNode("Coefficient").setDoubleProperty("v", c);
        }
    SerializationNode& particles = node.createChildNode("Particles");
    for (int type : force.getParticleTypes())
        particles.createChildNode("Particle").setIntProperty("type", type);
    SerializationNode& exclusions = node.createChildNode("Exclusions");
    for (int i = 0; i < force.getNumExclusions(); i++) {
        int particle1, particle2;
        force.getExclusionParticles(i, particle1, particle2);
        exclusions.createChildNode("Exclusion").setIntProperty("p1", particle1).setIntProperty("p2", particle2);
    }
}

void* SplinePairForceProxy::deserialize(const SerializationNode& node) const {
    int version = node.getIntProperty("version");
    if (version != VERSION)
        throw OpenMMException("SplinePairForce: unsupported version "+to_string(version)+" in XML, expected "+to_string(VERSION)+
                "; it was written by another version of openmm_diffsim");
    unique_ptr<SplinePairForce> force(new SplinePairForce(node.getIntProperty("numTypes"), node.getDoubleProperty("rMin"),
            node.getDoubleProperty("cutoff"), node.getIntProperty("numKnots")));
    force->setForceGroup(node.getIntProperty("forceGroup"));
    force->setName(node.getStringProperty("name"));
    force->setNonbondedMethod((SplinePairForce::NonbondedMethod) node.getIntProperty("method"));
    for (auto& spline : node.getChildNode("Splines").getChildren()) {
        vector<double> coefficients;
        for (auto& coefficient : spline.getChildren())
            coefficients.push_back(coefficient.getDoubleProperty("v"));
        force->setTypePairCoefficients(spline.getIntProperty("type1"), spline.getIntProperty("type2"), coefficients);
    }
    for (auto& particle : node.getChildNode("Particles").getChildren())
        force->addParticle(particle.getIntProperty("type"));
    for (auto& exclusion : node.getChildNode("Exclusions").getChildren())
        force->addExclusion(exclusion.getIntProperty("p1"), exclusion.getIntProperty("p2"));
    return force.release();
}
