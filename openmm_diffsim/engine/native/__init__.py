"""The native plugin: an OpenMM Force that knows its derivatives, and segments of trajectories.

``why_not`` is None where the plugin was found and loaded, and else says what is missing.
"""

from __future__ import annotations

import openmm

from .force import SplinePairForce
from .libraries import FOLDER, loaded, not_loaded, why_not
from .segments import ChainThermostat, SegmentGradient, SegmentPropagator, SegmentRun

__all__ = [
    "FOLDER",
    "ChainThermostat",
    "SegmentGradient",
    "SegmentPropagator",
    "SegmentRun",
    "SplinePairForce",
    "available",
    "loaded",
    "not_loaded",
    "supports",
    "why_not",
]


def available() -> bool:
    """Is the plugin there, for this version of OpenMM?"""
    return why_not is None


def supports(platform: openmm.Platform) -> bool:
    """Has the plugin kernels for this platform?"""
    return available() and bool(platform.supportsKernels(("CalcSplinePairForce",)))
