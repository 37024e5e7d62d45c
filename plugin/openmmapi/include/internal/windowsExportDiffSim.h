#ifndef OPENMM_DIFFSIM_WINDOWSEXPORT_H_
#define OPENMM_DIFFSIM_WINDOWSEXPORT_H_

#ifdef _MSC_VER
    #if defined(OPENMM_DIFFSIM_BUILDING_LIBRARY)
        #define OPENMM_EXPORT_DIFFSIM __declspec(dllexport)
    #else
        #define OPENMM_EXPORT_DIFFSIM __declspec(dllimport)
    #endif
#else
    #define OPENMM_EXPORT_DIFFSIM __attribute__((visibility("default")))
#endif

#endif /*OPENMM_DIFFSIM_WINDOWSEXPORT_H_*/
