"""OpenMM's XML from files that others wrote: nothing in them runs, nothing fills the memory."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from networks import embedded
from systems import empty_system

import openmm_diffsim as diffsim
from openmm_diffsim.engine.xml import from_xml
from openmm_diffsim.errors import FileError, UntrustedError
from openmm_diffsim.io import read_arrays


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def python_force(trace: Path) -> str:
    return (
        f'<Force forceGroup="0" function="{pickle.dumps(Evil(trace)).hex()}" name="f" '
        'type="PythonForce" usesPeriodic="0" version="2"><GlobalParameters/><Particles/></Force>'
    )


def system_with(force: str) -> str:
    text = openmm.XmlSerializer.serialize(empty_system(2, np.eye(3)))
    return re.sub("<Forces ?/>", f"<Forces>{force}</Forces>", text)


def nested(trace: Path) -> str:
    cv = openmm.CustomCVForce("x")
    cv.addCollectiveVariable("x", openmm.HarmonicBondForce())
    text = openmm.XmlSerializer.serialize(cv).split("?>")[1]
    return re.sub(r"<Force [^>]*HarmonicBond.*?</Force>", python_force(trace), text, flags=re.S)


HOSTILE = {
    "a Python force": python_force,
    "one within another force": nested,
    "one in a place of another name": lambda t: (
        python_force(t).replace("Force ", "Particle ", 1)[: -len("</Force>")] + "</Particle>"
    ),
    "its name in entities": lambda t: python_force(t).replace("PythonF", "Python&#70;"),
    "a TorchForce": lambda t: '<Force type="TorchForce" version="4" file="x.pt"/>',
    "a plugin's force": lambda t: '<Force type="PlumedForce" version="1" script="x"/>',
    "a TabulatedFunction as a force": lambda t: '<Force type="Discrete1DFunction" version="1"/>',
    "a force as a System": lambda t: '<System type="HarmonicBondForce" version="1"/>',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_code_in_a_system_does_not_run(name: str, trace: Path) -> None:
    text = system_with(HOSTILE[name](trace))
    assert "Python" in text or "type" in text
    with pytest.raises(FileError):
        from_xml(text, openmm.System)
    assert not trace.exists()


def test_code_in_what_only_another_parser_takes_for_a_comment_does_not_run(trace: Path) -> None:
    text = system_with(f"<!-- > {python_force(trace)} -->")
    assert from_xml(text, openmm.System).getNumForces() == 0
    assert not trace.exists()


@pytest.mark.parametrize("kind", [openmm.State, openmm.Integrator, openmm.System])
def test_code_in_place_of_what_was_expected_does_not_run(kind: type, trace: Path) -> None:
    for text in (
        python_force(trace),
        re.sub(
            "^<Force|Force>$", lambda m: m[0].replace("Force", kind.__name__), python_force(trace)
        ),
    ):
        with pytest.raises(FileError):
            from_xml(text, kind)
    assert not trace.exists()


def test_who_trusts_the_file_runs_it(tmp_path: Path, trace: Path) -> None:
    path = tmp_path / "system.xml"
    potential = embedded()
    system = empty_system(4, np.eye(3) * 2)
    potential.attach(system, backend="python")
    path.write_text(openmm.XmlSerializer.serialize(diffsim.portable_system(system)))
    with pytest.raises(UntrustedError, match=r"system\.xml.*PythonForce.*--trust.*trusted=True"):
        diffsim.read_xml(path, openmm.System)
    assert diffsim.read_xml(path, openmm.System, trusted=True).getNumForces() == 1


BOMB = '<!DOCTYPE b [<!ENTITY a "xxxxxxxxxx">{}]><System type="System">&{};</System>'.format(
    "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "j",
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "document type"),
        ('<!DOCTYPE s SYSTEM "file:///etc/passwd"><System/>', "document type"),
        ("<System>" + "<a>" * 1000 + "</a>" * 1000 + "</System>", "elements"),
        ("", "is no System"),
        ("no XML", "is no System"),
        ("<System", "is no System"),
        ("<State/>", "holds a State, expected a System"),
        ('<System type="System" version="1"/>', "is no System"),
    ],
)
def test_what_is_no_system_is_refused(text: str, words: str) -> None:
    with pytest.raises(FileError, match=words):
        from_xml(text, openmm.System)


@pytest.mark.parametrize("mass", ["abc", "", "nan", "1e999", "39,9"])
def test_a_mass_that_is_no_number_is_not_read_as_none(mass: str) -> None:
    text = openmm.XmlSerializer.serialize(empty_system(2, np.eye(3) * 2))
    assert text.count('mass="') == 2
    before, after = text.split('mass="', 1)
    text = f'{before}mass="{mass}{after[after.index(chr(34)) :]}'
    with pytest.raises(FileError, match=f"Particle with the mass '{mass}', expected a number"):
        from_xml(text, openmm.System)


def test_a_file_that_is_none_or_too_large_is_refused_unread(tmp_path: Path) -> None:
    huge = tmp_path / "huge.xml"
    with open(huge, "wb") as stream:
        stream.truncate(1 << 40)
    for path, words in ((huge, "bytes, expected at most"), (tmp_path, "no such file")):
        with pytest.raises(FileError, match=words):
            diffsim.read_xml(path, openmm.System)


def everything() -> list[Any]:
    cv = openmm.CustomCVForce("x*f(x)")
    cv.addCollectiveVariable("x", openmm.HarmonicBondForce())
    cv.addTabulatedFunction("f", openmm.Continuous1DFunction([1, 2, 3], 0, 1))
    alchemical = openmm.ATMForce(0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 0.5, 0.8, 1)
    alchemical.addForce(openmm.HarmonicBondForce())
    system = empty_system(3, np.eye(3))
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    vdw = openmm.AmoebaVdwForce()
    vdw.addParticleType(0.1, 0.2)
    vdw.addParticle(0, 0, 1.0, False)
    forces = [cv, alchemical, vdw, openmm.NonbondedForce(), openmm.MonteCarloBarostat(1, 300)]
    forces += [openmm.CMMotionRemover(), openmm.DrudeForce(), openmm.CMAPTorsionForce()]
    if diffsim.engine.native.why_not is None:
        own = diffsim.SplinePairForce(2, 0.2, 0.4, 9)
        own.addParticle(-1)
        forces.append(own)
    for force in forces:
        system.addForce(force)
    several = openmm.CompoundIntegrator()
    several.addIntegrator(openmm.NoseHooverIntegrator(300, 1, 0.001))
    several.addIntegrator(openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    custom = openmm.CustomIntegrator(0.001)
    custom.addTabulatedFunction("f", openmm.Discrete1DFunction([1, 2]))
    return [system, several, custom, openmm.DPDIntegrator(300, 1, 1, 0.001)]


@pytest.mark.parametrize("index", range(4))
def test_what_openmm_writes_is_read_as_it_was(index: int) -> None:
    made = everything()[index]
    kind = openmm.System if isinstance(made, openmm.System) else openmm.Integrator
    text = openmm.XmlSerializer.serialize(made)
    assert openmm.XmlSerializer.serialize(from_xml(text, kind)) == text


def saved(tmp_path: Path, write: Any = np.savez, **arrays: Any) -> bytes:
    write(tmp_path / "a.npz", **arrays)
    return (tmp_path / "a.npz").read_bytes()


def test_arrays_are_read_as_they_were_saved(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b/c": np.array(3), "d": np.zeros((0, 2))}
    found = read_arrays(saved(tmp_path, **arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_arrays_that_run_code_or_fill_the_memory_are_refused(tmp_path: Path, trace: Path) -> None:
    objects = saved(tmp_path, a=np.array([Evil(trace)], dtype=object))
    bomb = saved(tmp_path, np.savez_compressed, a=np.zeros(100_000))
    huge = saved(tmp_path, a=np.zeros(100)).replace(b"(100,)", b"(9e9,)".replace(b"9e9", b"999"))
    for data, words in (
        (objects, "pickled"),
        (bomb, "compressed"),
        (huge, "archive|expected"),
        (b"PK", "no archive"),
    ):
        with pytest.raises(ValueError, match=words):
            read_arrays(data)
    assert not trace.exists()
