/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#include "TestSplinePairForce.h"

int main(int argc, char* argv[]) {
    return runTests("CPU", argc, argv);
}
