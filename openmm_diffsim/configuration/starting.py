"""A commented configuration to start from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..io.trajectories import read_topology
from .section import quoted

_MOST_NAMES = 8  # of atoms, that a comment lists


@dataclass(frozen=True)
class Starting:
    """What is known of a fit that somebody is about to describe; None: left to be filled in."""

    rdf: Path
    temperature: float  # K
    topology: Path | None = None
    system: Path | None = None
    state: Path | None = None
    atoms: str | None = None
    mass: float | None = None  # amu, of a fluid of one kind of particle
    density: float | None = None  # g/cm3, likewise
    cutoff: float | None = None  # nm
    length_unit: str = "nm"
    uncertainty: float | None = None  # of g(r)
    pressure: float | None = None  # bar, measured
    platform: str = "CPU"


def starting_text(known: Starting, name: str) -> str:
    """A configuration file, for ``openmm-diffsim check`` and ``refine``."""
    parts = [_head(name), _system(known), _dynamics(known), _potential(known), _targets(known)]
    return "\n".join([*parts, _refine(Path(name).stem)])


def _head(name: str) -> str:
    return (
        f"# openmm-diffsim check {name}   says what this would do, and what it costs;\n"
        f"# openmm-diffsim refine {name}  runs it. Units: nm, ps, K, kJ/mol, bar, amu.\n"
        "# Several state points, sums, parameters of a force field: docs/configuration.md.\n"
    )


def _section(*lines: tuple[str, str]) -> str:
    """Entries, each with what is to be said of it."""
    said = (f"{entry:<34}# {comment}" if comment else entry for entry, comment in lines)
    return "\n".join(said) + "\n"


def _system(known: Starting) -> str:
    if known.topology is None:
        return _section(
            ("[system]", "a fluid of one kind of particle"),
            ("particles = 500", ""),
            (f"mass_density = {known.density or 1.0:g}", "g/cm3; or number_density in 1/nm^3"),
            (f"mass = {known.mass or 39.948:g}", "amu"),
        )
    state = f"state = {quoted(known.state)}" if known.state else '# state = "state.xml"'
    return _section(
        ("[system]", "your own"),
        (f"topology = {quoted(known.topology)}", "its atoms, and where they begin"),
        (f"system = {quoted(known.system or 'system.xml')}", "XmlSerializer.serialize(system)"),
        (state, "where it begins, if not there"),
        (f"# There are {_atoms_of(known.topology)}.", ""),
        (f"atoms = {quoted(known.atoms or 'all')}", "those that the potential acts between"),
    )


def _atoms_of(topology: Path) -> str:
    names = Counter(f"name {a.name} of {a.residue.name}" for a in read_topology(topology).atoms)
    shown = [f"{count} x {name}" for name, count in names.most_common(_MOST_NAMES)]
    return ", ".join([*shown, "..."] if len(names) > _MOST_NAMES else shown)


def _dynamics(known: Starting) -> str:
    return _section(
        ("[dynamics]", "Langevin dynamics"),
        (f"temperature = {known.temperature:g}", ""),
        ("timestep = 0.002", "ps; a simple fluid bears 0.005 to 0.01"),
        ("friction = 1.0", "1/ps"),
        (f"platform = {quoted(known.platform)}", "or CUDA, OpenCL, Reference"),
        ("# pressure = 1.0", "bar, of a barostat that is added"),
    )


def _potential(known: Starting) -> str:
    return _section(
        ("[potential]", "what is learned: u(r) between these particles"),
        ('kind = "spline"', "or lennard-jones, mie, morse, ..., neural"),
        (f"cutoff = {known.cutoff or 0.9:g}", "at most half the box, and the range of g(r)"),
        ('initial = "boltzmann-inversion"', "begin at -kT ln g(r)"),
    )


def _targets(known: Starting) -> str:
    error = 0.02 if known.uncertainty is None else known.uncertainty
    rdf = _section(
        ("[[target]]", ""),
        ('observable = "rdf"', ""),
        (f"file = {quoted(known.rdf)}", ""),
        (f"length_unit = {quoted(known.length_unit)}", "of r in the file; or angstrom"),
        (f"uncertainty = {error:g}", "of g(r); without it, the third column of the file"),
        ("# scale = 0.01", "if its normalisation is known to a per cent only"),
    )
    off = "# " if known.pressure is None else ""
    pressure = _section(
        (f"{off}[[target]]", "with a pressure a potential is known far better"),
        (f'{off}observable = "pressure"', ""),
        (f"{off}value = {known.pressure or 1.0:g}", "bar"),
        (f"{off}uncertainty = 50.0", ""),
    )
    return f"{rdf}\n{pressure}"


def _refine(stem: str) -> str:
    return _section(
        ("[refine]", ""),
        ("rounds = 20", "at most: it ends when it has converged"),
        ("steps = 5000", "MD steps a round"),
        ("every = 50", "steps between frames"),
        ("seed = 1", ""),
        (f"output = {quoted('refined_' + stem)}", ""),
    )
