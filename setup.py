"""Builds plugin/ with CMake, into openmm_diffsim/lib; all else is declared in pyproject.toml.

Where that cannot be, the package is installed without the libraries, with a why_not.txt in their
place, and `openmm-diffsim info` says why. OPENMM_DIFFSIM_REQUIRE_NATIVE=1 makes it an error.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

SOURCE = Path(__file__).resolve().parent
REQUIRED = "OPENMM_DIFFSIM_REQUIRE_NATIVE"
SHOWN = 60  # last lines of a failed build


class BuildError(Exception):
    """The native libraries cannot be built; the message says why, and what to do."""


class BuildNative(Command):
    """Put the native libraries, or the reason why there are none, beside the Python modules."""

    description = "build the native OpenMM plugin"
    user_options: ClassVar[list] = [("build-lib=", "b", "folder that gets openmm_diffsim/lib")]

    def initialize_options(self):
        self.build_lib = None
        self.editable_mode = False  # setuptools sets it for pip install -e

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        root = SOURCE if self.editable_mode else Path(self.build_lib)
        folder = root.resolve() / "openmm_diffsim" / "lib"
        shutil.rmtree(folder, ignore_errors=True)  # libraries of another build
        folder.mkdir(parents=True)
        try:
            build_plugin(folder)
        except (BuildError, OSError) as error:
            if os.environ.get(REQUIRED, "0") not in ("", "0"):
                raise SystemExit(f"the native plugin cannot be built: {error}") from None
            print(f"going on without the native plugin: {error}", file=sys.stderr)
            (folder / "why_not.txt").write_text(f"{error}\n", encoding="utf-8")

    def get_source_files(self):
        """What an sdist has to hold."""
        files = (path for path in (SOURCE / "plugin").rglob("*") if path.is_file())
        return sorted(str(path.relative_to(SOURCE)) for path in files)


class BuildWithNative(build):
    sub_commands: ClassVar[list] = [*build.sub_commands, ("build_native", None)]


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python: the libraries do not use Python's ABI."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return True


def build_plugin(folder):
    """Build for the OpenMM of this environment, and record its version beside the libraries."""
    if sys.platform != "linux":
        raise BuildError(f"it is built on Linux only, and this is {sys.platform}")
    openmm = find_openmm()
    options = {
        "OPENMM_DIR": Path(openmm.version.openmm_library_path).parent,
        "CMAKE_INSTALL_PREFIX": folder,
        "CMAKE_BUILD_TYPE": "Release",
    }
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    # A fresh folder: a CMake cache would name build environments that are long gone.
    with tempfile.TemporaryDirectory(prefix="openmm_diffsim_") as work:
        cmake("-S", SOURCE / "plugin", "-B", work, "-G", "Ninja", *definitions)
        cmake("--build", work)
        cmake("--install", work)
    (folder / "openmm_version.txt").write_text(f"{openmm.__version__}\n", encoding="utf-8")


def find_openmm():
    try:
        import openmm
    except ImportError as error:
        raise BuildError(
            f"the build needs OpenMM ({error}): pip install it first, or leave out "
            "--no-build-isolation"
        ) from None
    return openmm


def cmake(*arguments):
    """Run CMake; what it says goes to pip's log (pip install -v shows it)."""
    # Without build isolation the programs may be beside a Python that is not on the PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    program = shutil.which("cmake", path=path)
    if program is None or shutil.which("ninja", path=path) is None:
        raise BuildError(
            "the build needs cmake and ninja: pip install cmake ninja, or leave out "
            "--no-build-isolation"
        )
    done = subprocess.run(
        [program, *map(str, arguments)],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = done.stdout.splitlines()
    print("\n".join(lines if done.returncode == 0 else lines[-SHOWN:]), flush=True)
    if done.returncode != 0:
        raise BuildError(reason(done.stdout))


def reason(output):
    """One line from all that a failed CMake said."""
    complaint = output.partition("CMake Error")[2]
    if "compiler" in complaint.lower():
        return (
            "no working C++ compiler was found when it was installed: install one (Debian: "
            "apt-get install g++), then openmm_diffsim again"
        )
    errors = [line for line in output.splitlines() if "error:" in line] or output.splitlines()[-1:]
    first = complaint.partition("\n\n\n")[0] or "".join(errors[:1])
    return f"its build failed (pip install -v shows all of it): {' '.join(first.split())}"


setup(
    distclass=PlatformDistribution,
    cmdclass={
        "build": BuildWithNative,
        "build_native": BuildNative,
        "bdist_wheel": PlatformWheel,
    },
)
