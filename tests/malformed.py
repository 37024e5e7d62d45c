"""Inputs that are wrong for certain, by a seeded generator, and the files that are right."""

from __future__ import annotations

import copy
import datetime
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import mdtraj
import numpy as np
import openmm
from openmm import app, unit

from openmm_diffsim.fluid import fluid

N, DENSITY = 120, 15.0
SIDE = (N / DENSITY) ** (1 / 3)  # nm


@dataclass(frozen=True)
class Case:
    """One command line in a folder of its own."""

    what: str
    arguments: list[str]
    names: tuple[str, ...]
    """The message has to hold one of them: the key, the option or the file that is wrong."""


# What is right -----------------------------------------------------------------------------------

DYNAMICS = {"temperature": 150.0, "timestep": 0.01, "platform": "CPU", "threads": 1}
REFINE = {"rounds": 1, "equilibration": 100, "steps": 200, "every": 10, "output": "out"}
RDF = {"observable": "rdf", "file": "g.csv", "uncertainty": 0.02}
FLUID: dict[str, Any] = {
    "system": {"particles": N, "number_density": DENSITY, "mass": 39.948},
    "dynamics": DYNAMICS,
    "potential": {"kind": "spline", "cutoff": 0.85, "knots": 30},
    "target": [RDF, {"observable": "pressure", "value": 1.0, "uncertainty": 50.0}],
    "refine": REFINE,
}
OWN = FLUID | {
    "system": {"topology": "box.pdb", "system": "system.xml", "state": "state.xml"},
    "potential": {"kind": "lennard-jones", "sigma": 0.34, "epsilon": 1.0, "cutoff": 0.85},
    "target": [RDF | {"atoms": "name X"}],
}
TABLE = FLUID | {"potential": {"kind": "spline", "cutoff": 0.85, "file": "u.csv", "r_min": 0.3}}
RDF_COMMAND = ["rdf", "box.pdb", "run.dcd", "--output", "found.csv"]


def toml(data: dict[str, Any]) -> str:
    """As TOML; a text that starts with "=" stands as it is."""
    lines = [f"{k} = {_plain(v)}" for k, v in data.items() if not _is_table(v)]
    for key, value in data.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", toml(value)]
        elif _is_table(value):
            lines += [f"[[{key}]]\n{toml(each)}" for each in value]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
    )


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        body = value.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\\u0000")
        return value[1:] if value.startswith("=") else f'"{body}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


def measured() -> tuple[np.ndarray, np.ndarray]:
    """A g(r) of a gas: exp(-u/kT) of a Lennard-Jones potential."""
    r = np.arange(0.005, 0.95, 0.01)
    x6 = (0.34 / np.maximum(r, 0.1)) ** 6
    return r, np.exp(-3.2 * (x6**2 - x6))


def write_rows(path: Path, *columns: Any) -> None:
    rows = [",".join(f"{v:.6g}" for v in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(rows) + "\n")


def write_valid(folder: Path) -> None:
    """Everything that a fit or a g(r) may be made of, all of it right."""
    r, g = measured()
    write_rows(folder / "g.csv", r, g)
    far = np.arange(0.3, 0.86, 0.01)
    write_rows(folder / "u.csv", far, 4 * ((0.34 / far) ** 12 - (0.34 / far) ** 6))
    topology, system = fluid(N, DENSITY, 39.948)
    grid = np.stack(np.meshgrid(*3 * [np.arange(5)]), axis=-1).reshape(-1, 3)[:N] * SIDE / 5
    with open(folder / "box.pdb", "w") as stream:
        app.PDBFile.writeFile(topology, grid * unit.nanometer, stream)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(grid)
    context.setVelocitiesToTemperature(150.0, 1)
    state = context.getState(getPositions=True, getVelocities=True)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    (folder / "state.xml").write_text(openmm.XmlSerializer.serialize(state))
    frames = grid + np.random.default_rng(1).normal(0, 0.03, (20, N, 3))
    made = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(topology))
    made.unitcell_vectors = np.array([np.eye(3) * SIDE] * 20)
    made.save_dcd(str(folder / "run.dcd"))
    for name, data in (("fit", FLUID), ("own", OWN), ("table", TABLE)):
        (folder / f"{name}.toml").write_text(toml(data))
    (folder / "subfolder").mkdir()


# What is wrong: values ---------------------------------------------------------------------------

HUGE = "=1" + "0" * 6000
DEEP = "=" + "[" * 3000 + "]" * 3000
ANY = [True, [1.0], [[1], ["a"]], {"a": 1}, datetime.date(2026, 1, 1), DEEP]  # of another type
NO_NUMBER = [*ANY, "1.0", float("nan"), float("inf"), -float("inf"), HUGE, 1e300, -1e300]
NO_SIZE = [*NO_NUMBER, -1.0, 0.0, 1e-300]
NO_COUNT = [*NO_NUMBER, -1, 1.5, 2**31, 2**63, 10**18]
NO_TEXT = [*ANY, 1, 1.5, ""]
NO_NAME = [*NO_TEXT, "a\0b", "no such thing", "x" * 100_000, "../../etc"]
NO_FILE = [*NO_TEXT, "a\0b", "absent", "subfolder", "fifo", "/dev/zero", "loop", "x" * 5000]
NO_ATOMS = [*NO_TEXT, "name Q", "name ==", "((", "no such 5", "import os", "(" * 2000, "a\0b"]

WRONG_VALUES: dict[str, dict[str, list[Any]]] = {
    "fit": {
        "system.particles": [*NO_COUNT, 0, 9],
        "system.number_density": NO_SIZE,
        "system.mass": NO_SIZE,
        "dynamics.temperature": NO_SIZE,
        "dynamics.timestep": [*NO_SIZE, 1.0],
        "dynamics.friction": NO_SIZE,
        "dynamics.threads": [*NO_COUNT, 0],
        "dynamics.platform": NO_NAME,
        "potential.kind": NO_NAME,
        "potential.cutoff": [*NO_SIZE, 2.0, 0.1],
        "potential.knots": [*NO_COUNT, 0, 3],
        "potential.r_min": [*NO_SIZE, 0.9],
        "potential.initial": NO_NAME,
        "target.0.observable": [*NO_NAME, "absent.py:Thing", "os:system", "g.csv:Thing"],
        "target.0.file": NO_FILE,
        "target.0.uncertainty": NO_SIZE,
        "target.0.weight": NO_SIZE,
        "target.0.noise": NO_NAME,
        "target.0.length_unit": NO_NAME,
        "target.0.window": [*NO_NUMBER, [0.3], [0.5, 0.3], [-1.0, 0.5], [0.3, "a"], [0.3, 1e300]],
        "target.0.atoms": NO_ATOMS,
        "target.0.atoms2": NO_ATOMS,
        "target.1.value": NO_NUMBER,
        "target.1.uncertainty": NO_SIZE,
        "refine.method": NO_NAME,
        "refine.rounds": [*NO_COUNT, 0],
        "refine.steps": [*NO_COUNT, 0, 30],
        "refine.every": [*NO_COUNT, 0],
        "refine.equilibration": NO_COUNT,
        "refine.seed": NO_COUNT,
        "refine.largest_step": NO_SIZE,
        "refine.output": [*NO_TEXT, "a\0b", "g.csv", "g.csv/out", "x" * 5000, "loop"],
    },
    "own": {
        "system.topology": [*NO_FILE, "g.csv", "system.xml", "run.dcd"],
        "system.system": [*NO_FILE, "g.csv", "state.xml", "box.pdb", "run.dcd"],
        "system.state": [*NO_FILE, "g.csv", "system.xml", "box.pdb", "run.dcd"],
        "system.atoms": NO_ATOMS,
        "potential.sigma": NO_SIZE,
        "potential.epsilon": NO_NUMBER,
    },
    "table": {"potential.file": [*NO_FILE, "box.pdb", "run.dcd", "system.xml"]},
}
CONFIGURATIONS = {"fit": FLUID, "own": OWN, "table": TABLE}
REQUIRED = [
    "system",
    "dynamics",
    "potential",
    "refine",
    "system.mass",
    "system.number_density",
    "system.particles",
    "dynamics.temperature",
    "dynamics.timestep",
    "potential.kind",
    "potential.cutoff",
    "target.0.observable",
    "target.0.file",
    "target.0.uncertainty",
    "target.1.value",
    "target.1.uncertainty",
]


def wrong_value(random: Random, folder: Path) -> Case:
    """A value that a key cannot have."""
    name = random.choices(list(WRONG_VALUES), [len(keys) for keys in WRONG_VALUES.values()])[0]
    key = random.choice(list(WRONG_VALUES[name]))
    value = random.choice(WRONG_VALUES[name][key])
    data = copy.deepcopy(CONFIGURATIONS[name])
    place, last = _place(data, key)
    place[last] = value
    (folder / f"{name}.toml").write_text(toml(data))
    names = (last, f"{name}.toml", str(value)[:40] or last)
    return Case(f"{key} = {str(value)[:60]!r}", ["refine", f"{name}.toml"], names)


def wrong_key(random: Random, folder: Path) -> Case:
    """A key that is missing, unknown, or a table in the place of something else."""
    data = copy.deepcopy(FLUID)
    key = random.choice(REQUIRED)
    place, last = _place(data, key)
    what = random.choice(["missing", "misspelt", "other", "unknown"])
    if what == "unknown":
        last = "".join(random.choices("abcdefgh", k=9))
        place[last] = random.choice([1, "a", [], {}])
    else:
        value = place.pop(last)
    if what == "misspelt":
        place[last[:2] + random.choice("xyzq") + last[2:]] = value
    if what == "other":
        place[last] = random.choice([[], [1, 2], {"a": {}}, [{}, {}]])
    (folder / "fit.toml").write_text(toml(data))
    return Case(f"{what} {key}", ["refine", "fit.toml"], (last, last[:2]))


def _place(data: Any, key: str) -> tuple[Any, Any]:
    *parents, last = key.split(".")
    for name in parents:
        data = data[int(name)] if isinstance(data, list) else data[name]
    return data, last


def wrong_text(random: Random, folder: Path) -> Case:
    """What is no TOML, or no text."""
    lines = (folder / "fit.toml").read_text().splitlines()
    assigned = [n for n, line in enumerate(lines) if " = " in line]
    n = random.choice(assigned)
    key, value = lines[n].split(" = ")
    broken = {
        "duplicate": f"{lines[n]}\n{lines[n]}",
        "cut": f"{key} =",
        "no value": key,
        "unclosed quote": f'{key} = "{value}',
        "unclosed bracket": f"{key} = [{value}",
        "no bracket": f"[{key}",
        "control": f"{key} = \x01{value}",
        "NUL": f"{key}\0 = {value}",
        "deep": f"{key} = " + "[" * 50_000,
        "deep tables": f"{key} = " + "{a = " * 20_000,
        "long": f"{key} = " + "9" * 2_000_000,
        "long name": "k" * 2_000_000 + " = 1",
        "two": f"{key} = {value} {value}",
        "bare word": f"{key} = argon",
        "hexadecimal": f"{key} = 0xZZ",
        "leading zero": f"{key} = 007",
    }
    what = random.choice([*broken, "latin", "utf-16", "empty", "binary", "other file"])
    text = "\n".join([*lines[:n], broken.get(what, lines[n]), *lines[n + 1 :]])
    data = {
        "latin": text.encode() + b"# \xe4\xff\n",
        "utf-16": text.encode("utf-16"),
        "empty": b"",
        "binary": random.randbytes(3000),
        "other file": (folder / "box.pdb").read_bytes(),
    }
    (folder / "fit.toml").write_bytes(data.get(what, text.encode()))
    return Case(f"{what} at {key}", ["refine", "fit.toml"], ("fit.toml", key, "kkkk", "system"))


# What is wrong: files ----------------------------------------------------------------------------


def wrong_curve(random: Random, folder: Path) -> Case:
    """A table that is no g(r)."""
    r, g = measured()
    rows = (folder / "g.csv").read_text().splitlines()
    n = random.randrange(40, 80)
    broken: dict[str, Callable[[], Any]] = {
        "infinite": lambda: _replaced(rows, n, f"{r[n]},inf"),
        "text": lambda: _replaced(rows, n, f"{r[n]},one"),
        "one column": lambda: _replaced(rows, n, f"{r[n]}"),
        "four columns": lambda: [row + ",1,2" for row in rows],
        "negative r": lambda: _replaced(rows, n, f"-{r[n]},1"),
        "negative g": lambda: _replaced(rows, n, f"{r[n]},-3"),
        "huge g": lambda: _replaced(rows, n, f"{r[n]},1e300"),
        "no structure": lambda: [f"{x},0" for x in r],
        "angstrom": lambda: [f"{10 * x},{y}" for x, y in zip(r, g, strict=True)],
        "tiny r": lambda: [f"{0.01 * x},{y}" for x, y in zip(r, g, strict=True)],
        "few": lambda: rows[40:43],
        "swapped": lambda: [f"{y},{x}" for x, y in zip(r, g, strict=True)],
        "tends to 2": lambda: [f"{x},{2 * y}" for x, y in zip(r, g, strict=True)],
        "zero error": lambda: [f"{row},0" for row in rows],
        "negative error": lambda: [f"{row},-0.1" for row in rows],
        "all NaN": lambda: [f"{x},nan" for x in r],
        "empty": lambda: [],
        "comments": lambda: [f"# {row}" for row in rows],
        "million": lambda: [f"{x:.7f},{y:.4f}" for x, y in _fine(1_000_000)],
    }
    what = random.choice([*broken, "NUL", "binary", "gzip"])
    path = folder / "g.csv"
    if what in broken:
        path.write_text("\n".join(broken[what]()) + "\n")
    else:
        data = {"NUL": b"0.1,1\n\0", "binary": random.randbytes(5000), "gzip": b"\x1f\x8b\x08\0"}
        path.write_bytes(data[what])
    return Case(f"g(r): {what}", ["refine", "fit.toml"], ("g.csv", "target"))


def _replaced(rows: list[str], n: int, row: str) -> list[str]:
    return [*rows[:n], row, *rows[n + 1 :]]


def _fine(n: int) -> Any:
    r, g = measured()
    x = np.linspace(0.005, 0.94, n)
    return zip(x, np.interp(x, r, g), strict=True)


def wrong_potential(random: Random, folder: Path) -> Case:
    """A table that is no potential."""
    rows = (folder / "u.csv").read_text().splitlines()
    n = random.randrange(5, 50)
    first, _ = rows[n].split(",")
    choices = {
        "NaN": _replaced(rows, n, f"{first},nan"),
        "infinite": _replaced(rows, n, f"{first},inf"),
        "text": _replaced(rows, n, f"{first},x"),
        "huge": _replaced(rows, n, f"{first},1e300"),
        "twice": [*rows, rows[n]],
        "negative": _replaced(rows, n, f"-{rows[n]}"),
        "few": rows[:3],
        "one column": [row.split(",")[0] for row in rows],
        "empty": [],
    }
    what = random.choice(list(choices))
    (folder / "u.csv").write_text("\n".join(choices[what]))
    return Case(f"u(r): {what}", ["refine", "table.toml"], ("u.csv", "potential"))


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><System openmmVersion='8' type='System' version='1'>&j;</System>"
)


NO_FORCE = '<Forces><Force type="Frc" version="1"/></Forces>'


def wrong_xml(random: Random, folder: Path) -> Case:
    """A System or a State that is none, or not of these atoms."""
    name = random.choice(["system.xml", "state.xml"])
    path = folder / name
    text = path.read_text()
    other = folder / ("state.xml" if name == "system.xml" else "system.xml")
    one = re.search(r"<(Particle|Position) [^>]*/>", text)
    assert one is not None
    choices = {
        "truncated": text[: random.randrange(10, len(text) - 20)],
        "empty": "",
        "other": other.read_text(),
        "integrator": openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)),
        "one less": text.replace(one.group(0), "", 1),
        "one more": text.replace(one.group(0), one.group(0) * 2, 1),
        "NaN box": re.sub(r'(<A x=")[^"]*', r"\1nan", text, count=1),
        "no box length": re.sub(r'(<A x=")[^"]*', r"\g<1>0", text, count=1),
        "infinite box": re.sub(r'(<A x=")[^"]*', r"\g<1>inf", text, count=1),
        "no number": re.sub(r'(<A x=")[^"]*', r"\1abc", text, count=1),
        "entities": BOMB,
        "html": "<html><body>Not found</body></html>",
        "JSON": '{"system": 1}',
        "unknown type": re.sub(r'type="\w+"', 'type="Sytem"', text, count=1),
        "version": re.sub(r'version="\d+"', 'version="999"', text),
        "deep": "<a>" * 100_000,
    }
    if name == "state.xml":
        choices |= {
            "NaN position": re.sub(r'(<Position x=")[^"]*', r"\1nan", text, count=1),
            "far position": re.sub(r'(<Position x=")[^"]*', r"\g<1>1e300", text, count=1),
            "no positions": re.sub(r"<Positions>.*</Positions>", "", text, flags=re.DOTALL),
            "NaN velocity": re.sub(r'(<Velocity x=")[^"]*', r"\1nan", text, count=1),
        }
    else:
        choices |= {
            "NaN mass": re.sub(r'mass="[^"]*"', 'mass="nan"', text, count=1),
            "negative mass": re.sub(r'mass="[^"]*"', 'mass="-1"', text, count=1),
            "no force": text.replace("<Forces/>", NO_FORCE),
        }
    what = random.choice([*choices, "binary", "latin"])
    data = {"binary": random.randbytes(4000), "latin": text.encode()[:500] + b"\xff\xfe"}
    path.write_bytes(data.get(what, choices.get(what, "").encode()))
    return Case(f"{name}: {what}", ["refine", "own.toml"], (name, "system.", "topology"))


def wrong_pdb(random: Random, folder: Path) -> Case:
    """A topology that is none, or not of this System."""
    path = folder / "box.pdb"
    lines = path.read_text().splitlines()
    atoms = [n for n, line in enumerate(lines) if line.startswith(("ATOM", "HETATM"))]
    n = random.choice(atoms)
    choices = {
        "empty": [],
        "no atoms": [line for m, line in enumerate(lines) if m not in atoms],
        "one less": [line for m, line in enumerate(lines) if m != n],
        "cut": lines[:n],
        "half a line": [*lines[:n], lines[n][:40]],
        "no coordinate": _replaced(lines, n, lines[n][:30] + "   abcd " + lines[n][38:]),
        "NaN": _replaced(lines, n, lines[n][:30] + "     nan" + lines[n][38:]),
        "text": ["It was a dark and stormy night."],
    }
    what = random.choice([*choices, "binary", "cif"])
    if what == "binary":
        path.write_bytes(random.randbytes(4000))
    elif what == "cif":
        text = (folder / "own.toml").read_text().replace("box.pdb", "box.cif")
        (folder / "own.toml").write_text(text)
        (folder / "box.cif").write_text("data_x\nloop_\n_atom_site.id\n1\n")
    else:
        path.write_text("\n".join(choices[what]))
    # the State, if any, would overrule the positions
    text = (folder / "own.toml").read_text().replace('state = "state.xml"\n', "")
    (folder / "own.toml").write_text(text)
    return Case(f"topology: {what}", ["refine", "own.toml"], ("box.pdb", "box.cif", "topology"))


# What is wrong: command lines --------------------------------------------------------------------


def wrong_refine(random: Random, folder: Path) -> Case:
    """Arguments of ``refine``."""
    choices: list[tuple[list[str], str]] = [
        (["refine"], "CONFIG.toml"),
        (["refine", "absent.toml"], "absent.toml"),
        (["refine", "subfolder"], "subfolder"),
        (["refine", "fifo"], "fifo"),
        (["refine", "/dev/zero"], "/dev/zero"),
        (["refine", "loop"], "loop"),
        (["refine", "x" * 5000], "xxx"),
        (["refine", "a\0b"], "a\0b"),
        (["refine", "g.csv"], "g.csv"),
        (["refine", "fit.toml", "--frobnicate"], "frobnicate"),
        (["refine", "fit.toml", "own.toml"], "own.toml"),
        (["refine", "fit.toml", "--output"], "--output"),
        (["refine", "fit.toml", "--output", "g.csv"], "g.csv"),
        (["refine", "fit.toml", "--output", "loop/x"], "loop"),
        (["refine", ""], ""),
        (["refin", "fit.toml"], "refin"),
        ([], "COMMAND"),
    ]
    arguments, name = random.choice(choices)
    return Case(f"refine {' '.join(arguments)[:60]!r}", arguments, (name,))


def wrong_rdf(random: Random, folder: Path) -> Case:
    """Arguments of ``rdf``, and the files they name."""
    counts = ["0", "-3", "1e3", "x", "1.5", str(10**9), "1" + "0" * 5000, ""]
    lengths = ["0", "-1", "nan", "inf", "1e300", "5", "x", "", "1e-300"]
    choices: list[tuple[list[str], str]] = [
        *[([*RDF_COMMAND, f"--bins={n}"], "bins") for n in counts],
        *[([*RDF_COMMAND, f"--r-max={x}"], "r") for x in lengths],
        *[([*RDF_COMMAND, f"--atoms={s}"], "atom") for s in ("name Q", "((", "no such", "a\0b")],
        *[([*RDF_COMMAND, f"--atoms2={s}"], "atom") for s in ("name Q", "((", "no such")],
        (["rdf"], "topology"),
        (["rdf", "box.pdb"], "trajectory"),
        (["rdf", "box.pdb", "absent.dcd"], "absent.dcd"),
        (["rdf", "absent.pdb", "run.dcd"], "absent.pdb"),
        (["rdf", "box.pdb", "subfolder"], "subfolder"),
        (["rdf", "box.pdb", "g.csv"], "g.csv"),
        (["rdf", "g.csv", "run.dcd"], "g.csv"),
        (["rdf", "box.pdb", "/dev/zero"], "/dev/zero"),
        (["rdf", "box.pdb", "fifo"], "fifo"),
        *[_broken_trajectory(random, folder, how) for how in TRAJECTORIES for _ in range(2)],
    ]
    arguments, name = random.choice(choices)
    return Case(f"{' '.join(arguments)[:60]!r}", arguments, (name,))


TRAJECTORIES = [
    "empty",
    "text",
    "noise",
    "header",
    "atoms",
    "counts",
    "nan",
    "box",
    "suffix",
    "psf",
]


def _broken_trajectory(random: Random, folder: Path, how: str) -> tuple[list[str], str]:
    """The command line with a trajectory, or a topology, that cannot be read."""
    data = (folder / "run.dcd").read_bytes()
    name = f"{how}.dcd"
    xyz = np.frombuffer(data, dtype=np.float32)
    content = {
        "empty": b"",
        "text": b"It was a dark and stormy night.\n" * 10,
        "noise": random.randbytes(4000),
        "header": data[: random.randrange(20, 90)],
        "counts": data[:8] + struct.pack("<i", 2**31 - 1) + data[12:100],
        "atoms": data.replace(struct.pack("<3i", 4, N, 4), struct.pack("<3i", 4, 2**30, 4)),
        "nan": xyz[:90].tobytes() + np.full_like(xyz[90:200], np.nan).tobytes() + data[800:],
        "box": data,
    }
    if how in content:
        (folder / name).write_bytes(content[how])
    if how == "box":
        _write_without_box(folder / name)
    if how == "suffix":
        name = random.choice(["run.h5", "run.xtc", "run.trr", "run.nc", "run.lammpstrj", "run.xyz"])
        (folder / name).write_bytes(random.randbytes(2000))
    if how == "psf":
        (folder / "bad.psf").write_text("PSF\n\n 5 !NTITLE\n" + "x " * random.randrange(100))
        return ["rdf", "bad.psf", "run.dcd", "--output", "found.csv"], "bad.psf"
    return ["rdf", "box.pdb", name, "--output", "found.csv"], name


def _write_without_box(path: Path) -> None:
    topology = mdtraj.Topology.from_openmm(fluid(N, DENSITY, 39.948)[0])
    mdtraj.Trajectory(np.zeros((5, N, 3)), topology).save_dcd(str(path))


FAMILIES: dict[Callable[[Random, Path], Case], int] = {
    wrong_value: 130,
    wrong_key: 20,
    wrong_text: 30,
    wrong_curve: 25,
    wrong_potential: 10,
    wrong_xml: 35,
    wrong_pdb: 10,
    wrong_refine: 10,
    wrong_rdf: 30,
}
"""How many of each: 300 in all."""


def special_files(folder: Path) -> None:
    """What opening waits for, or never ends, or goes round in a circle."""
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
