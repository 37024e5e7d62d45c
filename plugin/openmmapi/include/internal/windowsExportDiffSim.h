/*
 * Part of openmm_diffsim, an extension of OpenMM. Copyright (c) 2026 openmm_diffsim developers.
 * SPDX-License-Identifier: MIT
 * The full text, which comes without any warranty, is in the file LICENSE.
 */

#ifndef OPENMM_DIFFSIM_WINDOWSEXPORT_H_
#define OPENMM_DIFFSIM_WINDOWSEXPORT_H_

/**
 * OPENMM_EXPORT_DIFFSIM marks what libOpenMMDiffSim offers, OPENMM_EXPORT_DIFFSIM_PLUGIN the two functions by which OpenMM
 * starts a platform's library. The build of libOpenMMDiffSim defines OPENMM_DIFFSIM_BUILDING_SHARED_LIBRARY, or for a static
 * one OPENMM_DIFFSIM_BUILDING_STATIC_LIBRARY; whoever links a static one defines OPENMM_DIFFSIM_USE_STATIC_LIBRARIES.
 */
#ifdef _MSC_VER
    #pragma warning(disable:4251) // private members need no export
    #if defined(OPENMM_DIFFSIM_BUILDING_SHARED_LIBRARY)
        #define OPENMM_EXPORT_DIFFSIM __declspec(dllexport)
    #elif defined(OPENMM_DIFFSIM_BUILDING_STATIC_LIBRARY) || defined(OPENMM_DIFFSIM_USE_STATIC_LIBRARIES)
        #define OPENMM_EXPORT_DIFFSIM
    #else
        #define OPENMM_EXPORT_DIFFSIM __declspec(dllimport)
    #endif
    #define OPENMM_EXPORT_DIFFSIM_PLUGIN __declspec(dllexport)
#else
    #define OPENMM_EXPORT_DIFFSIM __attribute__((visibility("default")))
    #define OPENMM_EXPORT_DIFFSIM_PLUGIN __attribute__((visibility("default")))
#endif

#endif /*OPENMM_DIFFSIM_WINDOWSEXPORT_H_*/
