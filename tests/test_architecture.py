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
    {"errors", "interrupts"},
    {"limits"},
    {"units"},
    {"curve"},
    {"io"},
    {"statistics"},
    {"potentials"},
    {"observables"},
    {"samples"},
    {"engine.xml", "engine.context"},
    {"engine.native"},
    {"engine.adapters"},
    {"engine.parameters"},
    {"engine.segments"},
    {"engine"},
    {"refinement"},
    {"export"},
    {"report"},
    {"fluid"},
    {"configuration"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}

WITHOUT_OPENMM = (
    "errors",
    "limits",
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


# Kinds of potential, force and observable ---------------------------------------------------------

KINDS = [
    "PairPotential", "AnalyticPair", "SigmaEpsilonPair", "LennardJones", "Mie", "Morse",
    "SoftSphere", "Yukawa",
    "SplinePair", "NeuralPair", "PairSum", "TemperatureDependent", "NetworkPotential", "Sum",
    "BondedSpline", "BondSpline", "AngleSpline", "DihedralSpline",
    "SplinePairForce", "CustomNonbondedForce", "NonbondedForce", "PythonForce", "TorchForce",
    "PythonTorchForce",
    "RDF", "TupleDistribution", "AngleDistribution", "BondDistribution", "DihedralDistribution",
    "Pressure", "Configurations", "FunctionOfAverages",
    "SegmentObservable", "SegmentFunction", "VACF", "MSD", "Diffusion", "IncoherentScattering",
    "SelfVanHove", "SmoothRDF",
    "PerMolecule", "Volume", "Density", "PotentialEnergy", "Enthalpy", "HeatOfVaporization",
    "Covariance", "HeatCapacity", "SpecificHeatCapacity",
    "IsothermalCompressibility", "ThermalExpansion",
    "DielectricConstant", "DipoleFluctuation", "PressureTensor", "SurfaceTension",
]  # fmt: skip
KNOW_KINDS = ("engine/adapters/", "engine/native")


def kind_checks(package: Path) -> list[str]:
    """A line for each question what kind a potential, force or observable is, but for the files
    that connect kinds with OpenMM and the one that a kind is defined in."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package).as_posix()
        if relative.startswith(KNOW_KINDS):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        found += [
            f"{relative}:{line}: asks for {name}"
            for line, name in asked_for(tree)
            if name in KINDS and name not in own
        ]
    return found


def asked_for(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names in the tests ``isinstance(_, A | B)``, ``A.isinstance(_)``, ``type(_) is A``, and the
    patterns ``case A()``; and ``isinstance`` of a constant, by what it stands for."""
    constants = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        tested: list[ast.AST] = []
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in ("isinstance", "issubclass"):
                tested = [*node.args[1:]]
            elif isinstance(function, ast.Attribute) and function.attr == "isinstance":
                tested = [function.value]
        elif isinstance(node, ast.Compare) and "type(" in ast.unparse(node):
            tested = [node]
        elif isinstance(node, ast.MatchClass):
            tested = [node.cls]
        tested += [constants[name] for part in tested for name in names(part) if name in constants]
        yield from ((node.lineno, name) for part in tested for name in names(part))  # type: ignore[attr-defined]


def names(node: ast.AST) -> list[str]:
    """Of variables and attributes, anywhere in it."""
    found = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    return found + [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)]


def defined_kinds(package: Path) -> set[str]:
    """Subclasses of Potential and Observable, by the names of their bases, but private ones."""
    bases = {
        node.name: {name for base in node.bases for name in names(base)}
        for room in ("potentials", "observables")
        for path in files_of(package, room)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    kinds = {"Potential", "Observable"}
    for _ in bases:
        kinds |= {name for name, above in bases.items() if above & kinds}
    return {name for name in kinds if not name.startswith("_")} - {"Potential", "Observable"}


def test_no_ladder_over_kinds() -> None:
    """What a kind does is said by its class or its adapter: nobody else asks which it is."""
    assert kind_checks(PACKAGE) == []


def test_all_kinds_are_known() -> None:
    """A new class is one more that nobody may ask for."""
    assert sorted(defined_kinds(PACKAGE) - set(KINDS)) == []


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


@pytest.mark.parametrize(
    "text",
    [
        "isinstance(p, PairPotential)",
        "isinstance(p, potentials.PairPotential)",
        "isinstance(p, Mapping | PairPotential)",
        "isinstance(p, (Mapping, PairPotential))",
        "PAIRS = (PairPotential, Mapping)\nisinstance(p, PAIRS)",
        "issubclass(p, PairPotential)",
        "PairPotential.isinstance(p)",
        "type(p) is PairPotential",
        "type(p) in (Mapping, PairPotential)",
        "match p:\n    case PairPotential():\n        pass",
    ],
)
def test_planted_question_of_kind_is_found(tmp_path: Path, text: str) -> None:
    package = plant(tmp_path, "samples/view.py", text)
    line = {"P": 2, "m": 2}.get(text[0], 1) if "\n" in text else 1
    assert kind_checks(package) == [f"samples/view.py:{line}: asks for PairPotential"]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("samples/view.py", "isinstance(p, Potential)"),
        ("samples/view.py", "PairPotential(isinstance(p, Mapping))"),
        ("engine/adapters/pair.py", "isinstance(p, PairPotential)"),
        ("potentials/pair.py", "class PairPotential: ...\nisinstance(p, PairPotential)"),
    ],
)
def test_planted_question_that_may_be_asked(tmp_path: Path, module: str, text: str) -> None:
    assert kind_checks(plant(tmp_path, module, text)) == []


def test_planted_kind_is_not_known(tmp_path: Path) -> None:
    text = "class Mine(base.Potential): ...\nclass Yours(Mine): ...\nclass _Ours(Mine): ..."
    assert defined_kinds(plant(tmp_path, "potentials/mine.py", text)) == {"Mine", "Yours"}
