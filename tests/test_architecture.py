"""Imports go one way: each module knows only of those below it, and the middle not of OpenMM."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "openmm_diffsim"

# Rooms, from low to high; those of one layer may import each other. A room is a module or a whole
# subpackage; the longest name that fits a module says which room it is in.
LAYERS = [
    {"errors"},
    {"units"},
    {"curve"},
    {"io"},
    {"statistics"},
    {"potentials"},
    {"observables"},
    {"samples"},
    {"engine.native"},
    {"engine.adapters"},
    {"engine.segments"},
    {"engine"},
    {"refinement"},
    {"report"},
    {"fluid"},
    {"configuration"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}

WITHOUT_OPENMM = (
    "errors",
    "curve",
    "io",
    "statistics",
    "potentials",
    "observables",
    "samples",
)


def imports(path: Path, package: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Each import in a file, wherever it stands in it, with the full name of what it imports."""
    folder = [package.name, *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            # `from package import module` names the module only after the import.
            is_package = (package.parent / base.replace(".", "/")).is_dir()
            yield from (
                (node, f"{base}.{alias.name}" if is_package else base) for alias in node.names
            )


def files_of(package: Path, room: str) -> list[Path]:
    """The files of a module, or of all of a subpackage."""
    path = package / room.replace(".", "/")
    return [*path.parent.glob(f"{path.name}.py"), *sorted(path.rglob("*.py"))]


def room_of(name: str) -> str:
    """The room of a module of the package, "engine.segments" of "engine.segments.fields"."""
    parts = name.split(".")
    known = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((room for room in known if room in LEVEL), parts[0])


def upward_imports(package: Path) -> list[str]:
    """A line for each import that goes up, and each module or import no layer has."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        name = ".".join(relative.with_suffix("").parts)
        room = room_of(name if name == "__init__" else name.removesuffix(".__init__"))
        if room not in LEVEL:
            found.append(f"{room} is in no layer")
            continue
        for node, imported in imports(path, package):
            top, _, rest = imported.partition(".")
            if top != package.name:
                continue
            other = room_of(rest or "__init__")
            if LEVEL.get(other, len(LAYERS)) > LEVEL[room]:
                found.append(f"{relative}:{node.lineno}: {room} imports {other}")
    return list(dict.fromkeys(found))  # an import of several names is found once for each


def openmm_imports(package: Path, module: str, lazily: bool = True) -> list[str]:
    """A line for each import of OpenMM; without `lazily`, none for those inside functions."""
    found = []
    for path in files_of(package, module):
        own = set(ast.parse(path.read_text(encoding="utf-8")).body)
        own_lines = {node.lineno for node in own}
        for node, name in imports(path, package):
            if name.split(".")[0] in ("openmm", "simtk") and (lazily or node.lineno in own_lines):
                found.append(f"{path.relative_to(package)}:{node.lineno}: imports {name}")
    return found


def test_no_import_goes_up() -> None:
    assert upward_imports(PACKAGE) == []


@pytest.mark.parametrize("module", WITHOUT_OPENMM)
def test_module_knows_nothing_of_openmm(module: str) -> None:
    assert openmm_imports(PACKAGE, module) == []


def test_units_import_openmm_only_when_needed() -> None:
    assert openmm_imports(PACKAGE, "units", lazily=False) == []
    assert len(openmm_imports(PACKAGE, "units")) == 1


# The checker is checked -------------------------------------------------------------------------

UPWARD = {
    "import openmm_diffsim.refinement": "refinement",
    "import openmm_diffsim.refinement.loop as loop": "refinement",
    "from openmm_diffsim.refinement.loop import run": "refinement",
    "from openmm_diffsim import refinement": "refinement",
    "from openmm_diffsim import SplinePair": "SplinePair",
    "import openmm_diffsim": "__init__",
    "from .. import refinement": "refinement",
    "from ..refinement import run": "refinement",
    "from ..refinement.loop import run": "refinement",
    "def late():\n    from ..refinement import run": "refinement",
    "if TYPE_CHECKING:\n    from ..refinement import run": "refinement",
}

DOWNWARD = [
    "from ..errors import UnitError",
    "from .. import units",
    "from . import base",
    "from .base import Potential",
    "import openmm_diffsim.units",
    "from openmm_diffsim.potentials.base import Potential",
    "import refinement",
]


def plant(folder: Path, module: str, text: str) -> Path:
    """A package of this one's name with a single module."""
    package = folder / PACKAGE.name
    (package / module).parent.mkdir(parents=True)
    (package / module).write_text(text)
    return package


@pytest.mark.parametrize("text", UPWARD)
def test_planted_upward_import_is_found(tmp_path: Path, text: str) -> None:
    package = plant(tmp_path, "potentials/pair.py", text)
    line = 1 + text.count("\n")
    assert upward_imports(package) == [
        f"{Path('potentials/pair.py')}:{line}: potentials imports {UPWARD[text]}"
    ]


@pytest.mark.parametrize("text", DOWNWARD)
def test_planted_downward_import_is_let_through(tmp_path: Path, text: str) -> None:
    assert upward_imports(plant(tmp_path, "potentials/pair.py", text)) == []


def test_planted_module_without_a_layer_is_found(tmp_path: Path) -> None:
    assert upward_imports(plant(tmp_path, "helpers.py", "")) == ["helpers is in no layer"]


@pytest.mark.parametrize(
    ("text", "eager", "lazy"),
    [
        ("import openmm.unit", 1, 1),
        ("from openmm import unit", 1, 1),
        ("def late():\n    from openmm import unit", 0, 1),
        ("from openmm_diffsim import units", 0, 0),
    ],
)
def test_planted_openmm_import_is_found(tmp_path: Path, text: str, eager: int, lazy: int) -> None:
    package = plant(tmp_path, "statistics.py", text)
    assert len(openmm_imports(package, "statistics", lazily=False)) == eager
    assert len(openmm_imports(package, "statistics")) == lazy
