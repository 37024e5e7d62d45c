/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "SplinePairForce.h"
#include "openmm/internal/AssertionUtilities.h"
#include "openmm/serialization/XmlSerializer.h"
#include <iostream>
#include <memory>
#include <sstream>

using namespace DiffSim;
using namespace OpenMM;
using namespace std;

void testSerialization() {
    SplinePairForce force(2, 0.25, 0.9, 8);
    force.setForceGroup(3);
    force.setName("custom name");
    force.setNonbondedMethod(SplinePairForce::CutoffPeriodic);
    force.setTypePairCoefficients(0, 0, {1.0, -0.1, 1e-30, 0.1, 5.0, 6.0});
    force.setTypePairCoefficients(1, 0, {1.0/3, 2, 3, 4, 5, 6});
    for (int type : {0, -1, 1, 1})
        force.addParticle(type);
    force.addExclusion(0, 3);
    force.addExclusion(2, 1);
    stringstream buffer;
    XmlSerializer::serialize<SplinePairForce>(&force, "Force", buffer);
    unique_ptr<SplinePairForce> copy(XmlSerializer::deserialize<SplinePairForce>(buffer));
    ASSERT_EQUAL(force.getForceGroup(), copy->getForceGroup());
    ASSERT_EQUAL(force.getName(), copy->getName());
    ASSERT_EQUAL(force.getNonbondedMethod(), copy->getNonbondedMethod());
    ASSERT_EQUAL(force.getNumTypes(), copy->getNumTypes());
    ASSERT_EQUAL(force.getRMin(), copy->getRMin());
    ASSERT_EQUAL(force.getCutoffDistance(), copy->getCutoffDistance());
    ASSERT_EQUAL(force.getNumKnots(), copy->getNumKnots());
    for (int i = 0; i < 2; i++)
        for (int j = i; j < 2; j++)
            ASSERT_EQUAL_CONTAINERS(force.getTypePairCoefficients(i, j), copy->getTypePairCoefficients(i, j));
    ASSERT_EQUAL_CONTAINERS(force.getParticleTypes(), copy->getParticleTypes());
    ASSERT_EQUAL(force.getNumExclusions(), copy->getNumExclusions());
    for (int i = 0; i < force.getNumExclusions(); i++) {
        int expected[2], found[2];
        force.getExclusionParticles(i, expected[0], expected[1]);
        copy->getExclusionParticles(i, found[0], found[1]);
        ASSERT_EQUAL(expected[0], found[0]);
        ASSERT_EQUAL(expected[1], found[1]);
    }
}

void testUnknownVersion() {
    stringstream buffer("<Force type=\"SplinePairForce\" version=\"99\"/>");
    try {
        XmlSerializer::deserialize<SplinePairForce>(buffer);
    }
    catch (const OpenMMException& error) {
        ASSERT(string(error.what()).find("unsupported version 99") != string::npos);
        return;
    }
    throwException(__FILE__, __LINE__, "an unknown version was accepted");
}

int main() {
    try {
        testSerialization();
        testUnknownVersion();
    }
    catch (const exception& error) {
        cout << "exception: " << error.what() << endl;
        return 1;
    }
    cout << "Done" << endl;
    return 0;
}
