"""Quantities and numbers become the same plain numbers; other dimensions are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from openmm import unit

from openmm_diffsim.errors import DiffsimError, OverlapError, TargetError, UnitError
from openmm_diffsim.units import (
    BAR,
    GRAM_PER_CM3,
    MOLAR_GAS_CONSTANT,
    UNIT_NAMES,
    beta,
    number_in_md_units,
    value_in_md_units,
)

CONVERSIONS = [
    (3.4 * unit.angstrom, "length", 0.34),
    (1 * unit.angstrom**2, "area", 0.01),
    (8 * unit.angstrom**3, "volume", 0.008),
    (2 / unit.angstrom, "wavenumber", 20.0),
    (2 * unit.femtosecond, "time", 0.002),
    (1 / unit.nanosecond, "rate", 0.001),
    (100 * unit.meter / unit.second, "velocity", 0.1),
    (100 * unit.angstrom**2 / unit.picosecond**2, "squared_velocity", 1.0),
    (1 * unit.centimeter**2 / unit.second, "diffusion", 100.0),
    (1 * unit.kilocalorie_per_mole, "energy", 4.184),
    (1 * unit.kilocalorie_per_mole / unit.angstrom, "force", 41.84),
    (180 * unit.degree, "angle", np.pi),
    (1 / unit.degree, "angular_density", 180 / np.pi),
    (300 * unit.kelvin, "temperature", 300.0),
    (1 * unit.atmosphere, "pressure", 1.01325),
    (1 * unit.kilojoule_per_mole / unit.nanometer**3, "pressure", 16.6053906717385),
    (1.5 * unit.amu, "mass", 1.5),
    (-1 * unit.elementary_charge, "charge", -1.0),
    (1 / unit.angstrom**3, "number_density", 1000.0),
    (1 * unit.mole / unit.liter, "number_density", 0.602214076),
    (1 * unit.gram / unit.milliliter, "mass_density", 1.0),
    (602.214076 * unit.amu / unit.nanometer**3, "mass_density", 1.0),
    (1 * unit.kilogram / unit.meter**3, "mass_density", 1e-3),
    (1 * unit.kilocalorie_per_mole / unit.kelvin, "heat_capacity", 4184.0),
    (1 / unit.atmosphere, "compressibility", 1 / 1.01325),
    (1 * unit.nanometer**3 / unit.kilojoule_per_mole, "compressibility", 1 / 16.6053906717385),
    (2 / unit.kelvin, "expansion", 2.0),
    (1 * unit.newton / unit.meter, "surface_tension", 1000.0),
    (1 * unit.kilojoule_per_mole / unit.nanometer**2, "surface_tension", 1.66053906717385),
    (unit.Quantity(0.5, unit.dimensionless), "dimensionless", 0.5),
]


@pytest.mark.parametrize(("quantity", "kind", "expected"), CONVERSIONS)
def test_quantity_becomes_number(quantity: object, kind: str, expected: float) -> None:
    value = number_in_md_units(quantity, kind)
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("x", [2, 2.0, np.float32(2), np.array(2), torch.tensor(2.0)])
def test_plain_number_is_in_md_units(x: object) -> None:
    value = value_in_md_units(x, "length")
    assert type(value) is float
    assert value == 2.0


@pytest.mark.parametrize(
    "x",
    [
        [1, 2] * unit.angstrom,
        unit.Quantity(np.array([1.0, 2.0]), unit.angstrom),
        [1 * unit.angstrom, 0.2],
        (0.1, 0.2),
        np.array([0.1, 0.2]),
    ],
)
def test_array_in_any_form(x: object) -> None:
    values = value_in_md_units(x, "length")
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, [0.1, 0.2], rtol=1e-15)


def test_array_is_new() -> None:
    given = np.array([1.0, np.nan])
    values = value_in_md_units(given, "length")
    assert isinstance(values, np.ndarray)
    values[0] = 5.0
    assert given[0] == 1.0


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (1 * unit.picosecond, "length"),
        ([1 * unit.nanometer, 1 * unit.picosecond], "length"),
        (1 * unit.kilojoule, "energy"),
        ("0.3", "length"),
        (None, "length"),
        (True, "length"),
        ([1.0, [2.0, 3.0]], "length"),
        (torch.tensor(1.0, requires_grad=True), "length"),
    ],
)
def test_other_dimensions_and_things_are_refused(x: object, kind: str) -> None:
    with pytest.raises(UnitError, match=kind) as caught:
        value_in_md_units(x, kind)
    assert caught.value.kind == kind


def test_message_names_both_units() -> None:
    with pytest.raises(UnitError, match="picosecond cannot be converted to nanometer"):
        value_in_md_units(1 * unit.picosecond, "length")


@pytest.mark.parametrize("x", [[1.0], np.nan])
def test_one_number_is_one_number(x: object) -> None:
    with pytest.raises(UnitError, match="expected one number for a length"):
        number_in_md_units(x, "length")


def test_the_name_of_a_unit_is_that_of_the_number_in_it() -> None:
    names = {
        "nm": unit.nanometer,
        "ps": unit.picosecond,
        "kJ": unit.kilojoule,
        "mol": unit.mole,
        "K": unit.kelvin,
        "bar": unit.bar,
        "amu": unit.dalton,
        "e": unit.elementary_charge,
        "rad": unit.radian,
        "g": unit.gram,
        "cm": unit.centimeter,
        "J": unit.joule,
        "mN": 1e-3 * unit.newton,
        "m": unit.meter,
        "1": unit.dimensionless,
    }
    for kind, text in UNIT_NAMES.items():
        md_unit = unit.dimensionless
        for place, factor in enumerate(text.split("/") if text else []):
            name, _, power = factor.partition("^")
            md_unit *= names[name] ** ((-1 if place else 1) * int(power or 1))
        assert number_in_md_units(unit.Quantity(2.0, md_unit), kind) == pytest.approx(2.0), kind


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'height' is unknown, expected one of length"):
        value_in_md_units(1.0, "height")


def test_constants_agree_with_openmm() -> None:
    gas_constant = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
    assert pytest.approx(gas_constant, rel=1e-12) == MOLAR_GAS_CONSTANT
    assert pytest.approx(16.605390671738, rel=1e-12) == BAR
    assert pytest.approx(602.214076, rel=1e-15) == GRAM_PER_CM3


def test_beta() -> None:
    assert beta(300) == pytest.approx(1 / (0.00831446261815324 * 300), rel=1e-15)
    assert beta(300 * unit.kelvin) == beta(300)


@pytest.mark.parametrize("temperature", [0, -1.0, np.inf, np.nan, 1 * unit.bar])
def test_beta_refuses_what_is_no_temperature(temperature: object) -> None:
    with pytest.raises(UnitError):
        beta(temperature)


def test_errors_carry_their_numbers_through_pickling() -> None:
    error = OverlapError("too few", n_effective=3.5, floor=9.0, n_frames=10)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, OverlapError)
    assert (str(copy), copy.n_effective, copy.floor, copy.n_frames) == ("too few", 3.5, 9.0, 10)


def test_errors_have_none_for_what_was_not_given() -> None:
    error = TargetError("bad", line=3)
    assert isinstance(error, DiffsimError)
    assert isinstance(error, ValueError)
    assert (error.line, error.path, error.key) == (3, None, None)
