"""``openmm-diffsim info``: versions, platforms, what is missing and how to get it."""

from __future__ import annotations

import argparse
from typing import Any

from .common import FINISHED

# Platforms that pip can add, and how.
_HOW_TO_GET = {
    "CUDA": 'pip install "openmm[cuda13]" (or cuda12, as the driver asks), on a machine with a GPU',
    "HIP": 'pip install "openmm[hip7]" (or hip6), on a machine with an AMD GPU',
    "OpenCL": "install an OpenCL driver: the GPU's own, or PoCL for a CPU "
    "(Debian: apt-get install pocl-opencl-icd ocl-icd-libopencl1)",
}


def add(commands: Any) -> None:
    """Its arguments."""
    command = commands.add_parser("info", help="versions, platforms, what is missing")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Versions, platforms, what is missing and how to get it."""
    import openmm

    from ..report.tables import versions

    for name, version in versions().items():
        print(f"{name:16s} {version}")
    print("\nplatforms of OpenMM, by speed:")
    platforms = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    for item in sorted(platforms, key=lambda p: -p.getSpeed()):
        print(f"  {item.getName():12s} speed {item.getSpeed():g}")
    for name in sorted(_HOW_TO_GET.keys() - {item.getName() for item in platforms}):
        print(f"  {name:12s} missing: {_HOW_TO_GET[name]}")
    for failure in openmm.Platform.getPluginLoadFailures():
        print(f"  not loaded: {failure}")
    print("\n" + "\n".join(_native_force({item.getName() for item in platforms})))
    return FINISHED


def _native_force(platforms: set[str]) -> list[str]:
    """Is the native force there, for which platforms, and why not for the others?"""
    import openmm

    from ..engine import native

    if native.why_not is not None:
        return [
            f"native force: missing: {native.why_not}",
            "learned forces run as a CustomNonbondedForce with a table, pair sums by Numba",
        ]
    lines = [f"native force: present, built for OpenMM {openmm.__version__}, on"]
    for name in sorted(platforms | set(native.loaded) | set(native.not_loaded)):
        if name in native.loaded:
            state = "yes"
        elif name not in platforms:
            state = f"no: OpenMM has no {name} platform here, see above"
        else:
            state = f"no: {native.not_loaded.get(name, 'there is no library for it')}"
        lines.append(f"  {name:12s} {state}")
    return lines
