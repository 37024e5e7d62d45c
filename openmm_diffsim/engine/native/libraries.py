"""The plugin's libraries: found, loaded, or why not."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import openmm

FOLDER = Path(__file__).parents[2] / "lib"
API = "libOpenMMDiffSim.so"
VERSION = "openmm_version.txt"  # of the OpenMM that they were built for

api: Any = None
"""The C interface, once it is loaded."""
loaded: list[str] = []
"""The platforms whose library was loaded."""
not_loaded: dict[str, str] = {}
"""Why a platform's library was not loaded, by its name."""


def load(folder: Path = FOLDER) -> str | None:
    """Load the libraries of a folder; None, or why that cannot be."""
    global api
    reason = _why_unfit(folder)
    if reason is not None:
        return reason
    try:
        api = ctypes.CDLL(str(folder / API), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"{API} cannot be loaded: {error}"
    api.DiffSim_getError.restype = ctypes.c_char_p
    for library in sorted(folder.glob("libOpenMMDiffSim?*.so")):
        _load_platform(library)
    return None


def require() -> None:
    """Raise openmm.OpenMMException where there are no libraries."""
    if api is None:
        raise openmm.OpenMMException(f"SplinePairForce: there is no native plugin: {why_not}")


def _why_unfit(folder: Path) -> str | None:
    """Why what a folder holds is not for this OpenMM, or None."""
    if not (folder / API).exists() or not (folder / VERSION).exists():
        reason = folder / "why_not.txt"
        if reason.exists():
            return reason.read_text(encoding="utf-8").strip()
        return (
            f"{folder} has no libraries; if this is a source tree, pip install -e . puts them "
            "there, and from another folder an installed openmm_diffsim is imported"
        )
    built_for = (folder / VERSION).read_text(encoding="utf-8").strip()
    if built_for != openmm.__version__:
        return (
            f"it was built for OpenMM {built_for}, but this is OpenMM {openmm.__version__}: "
            f"pip install openmm=={built_for}, or build openmm_diffsim for this one (README)"
        )
    return None


def _load_platform(library: Path) -> None:
    platform = library.stem.removeprefix("libOpenMMDiffSim")
    try:
        openmm.Platform.loadPluginLibrary(str(library))
        loaded.append(platform)
    except openmm.OpenMMException as error:
        not_loaded[platform] = str(error)


why_not = load()
