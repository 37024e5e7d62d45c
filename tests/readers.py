"""Systems as OpenMM's readers make them of other programs' files: small molecules, written here."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openmm import app, unit

Array = NDArray[np.float64]
SIDE = 1.9  # nm

# United-atom butanol: CH3-CH2-CH2-O-H with a 1-4 pair at each end, and a water.
_CHAIN = (("CH3", "C1"), ("CH2", "C2"), ("CH2", "C3"), ("OH", "O"), ("HO", "H"))
_CHARGES = (0.0, 0.05, 0.2, -0.7, 0.45)
_MASSES = {"CH3": 15.0, "CH2": 14.0, "OH": 16.0, "HO": 1.008, "OW": 16.0, "HW": 1.008}
_SITES = {  # sigma (nm), epsilon (kJ/mol)
    "CH3": (0.39, 0.73),
    "CH2": (0.395, 0.5),
    "OH": (0.307, 0.71),
    "HO": (0.1, 0.05),
    "OW": (0.315, 0.636),
    "HW": (0.0, 0.0),
}


def gromacs(
    folder: Path, rule: int = 3, nbfix: bool = False, chains: int = 6, waters: int = 12
) -> tuple[app.GromacsTopFile, Array]:
    """Alcohols and water by one of GROMACS's combination rules, in a box, with positions."""
    path = folder / "topol.top"
    path.write_text(_top(rule, nbfix, chains, waters))
    vectors = np.eye(3) * SIDE * unit.nanometer
    top = app.GromacsTopFile(str(path), periodicBoxVectors=vectors)
    return top, packed([_chain()] * chains + [_WATER] * waters)


def _top(rule: int, nbfix: bool, chains: int, waters: int) -> str:
    kinds = [
        f"{t} {t[0]}{t[1:].lower()} {_MASSES[t]} 0.0 A {_of(rule, *_SITES[t])}" for t in _SITES
    ]
    own = f"[ nonbond_params ]\nCH3 OW 1 {_of(rule, 0.36, 0.6)}\n" if nbfix else ""
    atoms = [
        f"{k} {kind} 1 BUO {name} {k} {_CHARGES[k - 1]} {_MASSES[kind]}"
        for k, (kind, name) in enumerate(_CHAIN, 1)
    ]
    return "\n".join(
        [
            f"[ defaults ]\n1 {rule} yes 0.5 0.5\n[ atomtypes ]",
            *kinds,
            own,
            "[ moleculetype ]\nBUO 3\n[ atoms ]",
            *atoms,
            "[ bonds ]\n1 2 1 0.153 2e5\n2 3 1 0.153 2e5\n3 4 1 0.143 2.5e5\n4 5 1 0.0945 4e5",
            "[ pairs ]\n1 4 1\n2 5 1",
            "[ angles ]\n1 2 3 1 112 500\n2 3 4 1 109.5 420\n3 4 5 1 108.5 460",
            "[ dihedrals ]\n1 2 3 4 3 2.9 -1.5 0.4 -1.8 0.1 -0.1\n2 3 4 5 9 0 1.2 3",
            "2 3 4 5 9 180 0.5 1\n1 3 2 4 2 10 30",
            "[ moleculetype ]\nHOH 2\n[ atoms ]\n1 OW 1 HOH O 1 -0.8 16.0",
            "2 HW 1 HOH H1 1 0.4 1.008\n3 HW 1 HOH H2 1 0.4 1.008",
            "[ settles ]\n1 1 0.1 0.1633\n[ exclusions ]\n1 2 3\n2 1 3\n3 1 2",
            f"[ system ]\nx\n[ molecules ]\nBUO {chains}\nHOH {waters}\n",
        ]
    )


def _of(rule: int, sigma: float, epsilon: float) -> str:
    """As a topology of this combination rule says them."""
    if rule == 1:
        return f"{4 * epsilon * sigma**6:.10g} {4 * epsilon * sigma**12:.10g}"
    return f"{sigma} {epsilon}"


_WATER = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [-0.0333, 0.0943, 0.0]])


def _chain() -> Array:
    steps = [[0.125, 0.088, 0.02], [0.125, -0.088, 0.01], [0.12, 0.075, 0.02], [0.08, -0.05, 0.01]]
    return np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])


def packed(molecules: list[Array], seed: int = 1) -> Array:
    """Molecules on a lattice in the box, turned at random."""
    rng, side = np.random.default_rng(seed), int(np.ceil(len(molecules) ** (1 / 3)))
    places = rng.permutation(side**3)[: len(molecules)]
    grid = np.stack(np.unravel_index(places, 3 * (side,)), axis=1) * SIDE / side
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in molecules]
    parts = [
        (x - x.mean(axis=0)) @ turn + place
        for x, turn, place in zip(molecules, turns, grid, strict=True)
    ]
    return np.concatenate(parts)


# Amber -------------------------------------------------------------------------------------------

_AMBER = {"CH3": "c3", "CH2": "cx", "OH": "oh", "HO": "ho", "OW": "OW", "HW": "HW"}
_NUMBERS = {"CH3": 6, "CH2": 6, "OH": 8, "HO": 1, "OW": 8, "HW": 1}


def amber(folder: Path, chains: int = 4, waters: int = 8, box: bool = True) -> Any:
    """Alcohols and water as a prmtop, and positions."""
    path = folder / "system.prmtop"
    path.write_text(_prmtop(chains, waters, box))
    prmtop = app.AmberPrmtopFile(str(path))
    return prmtop, packed([_chain()] * chains + [_WATER] * waters)


def _prmtop(chains: int, waters: int, box: bool) -> str:
    kinds = list(_SITES)
    atoms = [kind for kind, _ in _CHAIN] * chains + ["OW", "HW", "HW"] * waters
    starts = [5 * k for k in range(chains)] + [5 * chains + 3 * k for k in range(waters)]
    names = [name for _, name in _CHAIN] * chains + ["O", "H1", "H2"] * waters
    charges = list(_CHARGES) * chains + [-0.8, 0.4, 0.4] * waters
    n, types = len(atoms), len(kinds)
    place = {pair: k for k, pair in enumerate((i, j) for i in range(types) for j in range(i + 1))}
    index = [place[max(i, j), min(i, j)] + 1 for i in range(types) for j in range(types)]
    lj = [_coefficients(kinds[i], kinds[j]) for i, j in place]
    excluded = [[1, 2, 3], [2, 3, 4], [3, 4], [4], []]  # of a chain, from its first atom
    listed = [[starts[k] + a for a in own] for k in range(chains) for own in excluded]
    listed += [[starts[chains + k] + a for a in own] for k in range(waters) for own in _WATERS]
    bonds = [
        _row(starts[k], pair, t)
        for k in range(chains)
        for pair, t in (((0, 1), 1), ((1, 2), 1), ((2, 3), 2))
    ]
    with_h = [_row(starts[k], (3, 4), 3) for k in range(chains)]
    with_h += [
        _row(starts[chains + k], pair, t)
        for k in range(waters)
        for pair, t in (((0, 1), 4), ((0, 2), 4), ((1, 2), 5))
    ]
    angles = [_row(starts[k], (a, a + 1, a + 2), a + 1) for k in range(chains) for a in range(2)]
    angles_h = [_row(starts[k], (2, 3, 4), 3) for k in range(chains)]
    turns = [_row(starts[k], (3, 2, 1, 0), 1) for k in range(chains)]
    turns += [[t[0], t[1], -t[2], t[3], 2] for t in turns]
    turns_h = [_row(starts[k], (4, 3, 2, 1), 3) for k in range(chains)]
    pointers = [0] * 31
    for key, value in {
        0: n,
        1: types,
        2: len(with_h),
        3: len(bonds),
        4: len(angles_h),
        5: len(angles),
        6: len(turns_h),
        7: len(turns),
        10: sum(max(len(e), 1) for e in listed),
        11: len(starts),
        12: len(bonds),
        13: len(angles),
        14: len(turns),
        15: 5,
        16: 3,
        17: 3,
        18: types,
        27: int(box),
        28: 5,
    }.items():
        pointers[key] = value
    sections: dict[str, Any] = {
        "ATOM_NAME": names,
        "POINTERS": pointers,
        "CHARGE": [18.2223 * q for q in charges],
        "ATOMIC_NUMBER": [_NUMBERS[kind] for kind in atoms],
        "MASS": [float(_MASSES[kind]) for kind in atoms],
        "ATOM_TYPE_INDEX": [kinds.index(kind) + 1 for kind in atoms],
        "NUMBER_EXCLUDED_ATOMS": [max(len(e), 1) for e in listed],
        "NONBONDED_PARM_INDEX": index,
        "RESIDUE_LABEL": ["BUO"] * chains + ["WAT"] * waters,
        "RESIDUE_POINTER": [s + 1 for s in starts],
        "BOND_FORCE_CONSTANT": [310.0, 320.0, 370.0, 553.0, 553.0],
        "BOND_EQUIL_VALUE": [1.53, 1.43, 0.945, 0.9572, 1.5136],
        "ANGLE_FORCE_CONSTANT": [60.0, 50.0, 55.0],
        "ANGLE_EQUIL_VALUE": [1.95, 1.91, 1.89],
        "DIHEDRAL_FORCE_CONSTANT": [0.2, 0.25, 0.18],
        "DIHEDRAL_PERIODICITY": [3.0, 2.0, 3.0],
        "DIHEDRAL_PHASE": [0.0, 3.141594, 0.0],
        "SCEE_SCALE_FACTOR": [1.2] * 3,
        "SCNB_SCALE_FACTOR": [2.0] * 3,
        "LENNARD_JONES_ACOEF": [a for a, _ in lj],
        "LENNARD_JONES_BCOEF": [b for _, b in lj],
        "BONDS_INC_HYDROGEN": _flat(with_h),
        "BONDS_WITHOUT_HYDROGEN": _flat(bonds),
        "ANGLES_INC_HYDROGEN": _flat(angles_h),
        "ANGLES_WITHOUT_HYDROGEN": _flat(angles),
        "DIHEDRALS_INC_HYDROGEN": _flat(turns_h),
        "DIHEDRALS_WITHOUT_HYDROGEN": _flat(turns),
        "EXCLUDED_ATOMS_LIST": [a + 1 for e in listed for a in (e or [-1])],
        "HBOND_ACOEF": [],
        "HBOND_BCOEF": [],
        "AMBER_ATOM_TYPE": [_AMBER[kind] for kind in atoms],
        "RADII": [1.5] * n,
        "SCREEN": [0.8] * n,
        "BOX_DIMENSIONS": [90.0] + [10 * SIDE] * 3 if box else [],
    }
    return "%VERSION  VERSION_STAMP = V0001.000\n" + "".join(_section(*s) for s in sections.items())


_WATERS = ([1, 2], [2], [])


def _flat(rows: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(rows))


def _row(start: int, atoms: tuple[int, ...], kind: int) -> list[int]:
    return [*(3 * (start + a) for a in atoms), kind]


def _coefficients(one: str, two: str) -> tuple[float, float]:
    """A and B of Amber, kcal/mol and angstrom, by the rule of Lorentz and Berthelot."""
    (s1, e1), (s2, e2) = _SITES[one], _SITES[two]
    s6, e = (5 * (s1 + s2)) ** 6, np.sqrt(e1 * e2) / 4.184
    return float(4 * e * s6**2), float(4 * e * s6)


def _section(name: str, values: list[Any]) -> str:
    wide = {
        str: ("20a4", "{:<4}", 20),
        int: ("10I8", "{:8d}", 10),
        float: ("5E16.8", "{:16.8E}", 5),
    }
    kind, form, each = wide[type(values[0]) if values else float]
    lines = [
        "".join(form.format(v) for v in values[k : k + each]) for k in range(0, len(values), each)
    ]
    return "\n".join([f"%FLAG {name}", f"%FORMAT({kind})", *(lines or [""]), ""])


# CHARMM ------------------------------------------------------------------------------------------

_CHARMM = {"HA": "HB1", "H": "H", "N": "NH1", "CA": "CT1", "C": "C", "O": "O"}
_SHAPES = {  # epsilon (kcal/mol), half of r_min (angstrom), and those of 1-4 pairs
    "CT3": (-0.08, 2.04, -0.01, 1.9),
    "CT1": (-0.032, 2.0, -0.01, 1.9),
    "HA3": (-0.024, 1.34, -0.024, 1.34),
    "HB1": (-0.022, 1.32, -0.022, 1.32),
    "H": (-0.046, 0.2245, -0.046, 0.2245),
    "NH1": (-0.2, 1.85, -0.2, 1.55),
    "C": (-0.11, 2.0, -0.11, 2.0),
    "O": (-0.12, 1.7, -0.12, 1.4),
}


def charmm(folder: Path, topology: app.Topology, nbfix: bool = False) -> Any:
    """A dipeptide as a PSF with a parameter file: impropers, Urey-Bradley terms, a map."""
    atoms = list(topology.atoms())
    types = [_charmm_type(atom) for atom in atoms]
    bonds = [(a.index, b.index) for a, b in topology.bonds()]
    next_to: dict[int, list[int]] = {a.index: [] for a in atoms}
    for i, j in bonds:
        next_to[i].append(j)
        next_to[j].append(i)
    angles = [(i, j, k) for j in next_to for i in next_to[j] for k in next_to[j] if i < k]
    turns = [
        (i, j, k, m) for j, k in bonds for i in next_to[j] for m in next_to[k] if k != i and j != m
    ]
    at = {(a.residue.index, a.name): a.index for a in atoms}
    impropers = [(at[0, "C"], at[0, "CH3"], at[1, "N"], at[0, "O"])]
    ring = [at[0, "C"], at[1, "N"], at[1, "CA"], at[1, "C"], at[2, "N"]]
    maps = [(*ring[:4], *ring[1:])]
    path = folder / "system.psf"
    rows = [
        f"{a.index + 1} A {a.residue.index + 1} {a.residue.name} {a.name} {t} "
        f"{0.3 * np.cos(3.0 * a.index):.6f} {a.element.mass._value:.4f} 0"
        for a, t in zip(atoms, types, strict=True)
    ]
    lists = {"NBOND": bonds, "NTHETA": angles, "NPHI": turns, "NIMPHI": impropers}
    text = ["PSF EXT XPLOR", "", f"{1:8d} !NTITLE", "x", "", f"{len(rows):8d} !NATOM", *rows, ""]
    for name, entries in lists.items():
        text += [f"{len(entries):8d} !{name}: x", *(_line(e) for e in entries), ""]
    text += [f"{len(maps):8d} !NCRTERM: x", *(_line(m) for m in maps), ""]
    path.write_text("\n".join(text))
    (folder / "system.prm").write_text(_prm(types, bonds, angles, turns, impropers, maps, nbfix))
    return app.CharmmPsfFile(str(path)), app.CharmmParameterSet(str(folder / "system.prm"))


def _charmm_type(atom: Any) -> str:
    if atom.element.symbol == "H":
        return _CHARMM.get(atom.name, "HA3")
    return _CHARMM.get(atom.name, "CT3")


def _line(entry: tuple[int, ...]) -> str:
    return "".join(f"{i + 1:10d}" for i in entry)


def _prm(
    types: list[str], bonds: Any, angles: Any, turns: Any, impropers: Any, maps: Any, nbfix: bool
) -> str:
    def named(entries: Any) -> list[str]:
        return list(
            {
                min(way, way[::-1]): " ".join(way)
                for way in (tuple(types[i] for i in e) for e in entries)
            }.values()
        )

    lines = ["* x", "*", "ATOMS"]
    lines += [f"MASS {k} {t} {1.0 if t[0] == 'H' else 12.0}" for k, t in enumerate(_SHAPES, 1)]
    lines += [
        "BONDS",
        *(f"{b} {300 + 10 * k} {1.2 + 0.01 * k}" for k, b in enumerate(named(bonds))),
    ]
    ub = ("", " 11.6 2.2")
    lines += [
        "ANGLES",
        *(f"{a} {40 + k} {110 + k / 4}{ub[k % 2]}" for k, a in enumerate(named(angles))),
    ]
    lines += ["DIHEDRALS"]
    for k, turn in enumerate(named(turns)):
        lines += [f"{turn} {0.1 + 0.05 * k} {1 + k % 3} {180 * (k % 2)}.0"]
    lines += ["IMPROPER", *(f"{i} 20 0 0.0" for i in named(impropers))]
    grid = [np.sin(i / 3) + np.cos(j / 4) for i in range(24) for j in range(24)]
    lines += ["CMAP"]
    for m in maps:
        lines += [" ".join(types[i] for i in m) + " 24"]
        lines += [" ".join(f"{v:.6f}" for v in grid[k : k + 5]) for k in range(0, 576, 5)]
    lines += ["NONBONDED"]
    lines += [f"{t} 0.0 {a} {b} 0.0 {c} {d}" for t, (a, b, c, d) in _SHAPES.items()]
    return "\n".join(lines + (["NBFIX", "O CT3 -0.12 3.5"] if nbfix else []) + ["END", ""])
