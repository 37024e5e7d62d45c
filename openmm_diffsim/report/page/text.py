"""Numbers and units as text."""

from __future__ import annotations

import numpy as np

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def with_error(value: float, error: float) -> str:
    """Both to two digits of the error, such as "0.00245 ± 0.00012"; whole ones from 10 on.

    The value alone where its error is zero or not known.
    """
    if not (np.isfinite(error) and error > 0):
        return number(value, 4)
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    if digits > 7:
        return f"{scientific(value, 4)} ± {scientific(error, 2)}"
    return f"{value:.{digits}f} ± {error:.{digits}f}".replace("-", "−")


def number(value: float | None, digits: int = 3) -> str:
    """So many digits; a dash for what is not known, and a sign for what is not finite."""
    if value is None or np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}"
    return scientific(value, digits) if "e" in text else text.replace("-", "−")


def scientific(value: float, digits: int = 3) -> str:
    """Such as 1.2×10⁻⁵."""
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}×10{str(int(power)).translate(_RAISED)}".replace("-", "−")


def unit(name: str) -> str:
    """``nm^2/ps`` as nm² ps⁻¹."""
    first, *below = name.split("/")
    parts = [] if first == "1" else [_raised(first)]
    return " ".join(parts + [_raised(part, "⁻") for part in below])


def _raised(part: str, sign: str = "") -> str:
    name, _, power = part.partition("^")
    if not sign and not power:
        return name
    return f"{name}{sign}{(power or '1').translate(_RAISED)}"


def labelled(name: str, of: str) -> str:
    """A name with its unit, as on an axis."""
    return f"{name} / {unit(of)}" if of else name


def duration(seconds: float) -> str:
    """In the units that a reader thinks in."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def thousands(n: float) -> str:
    """A whole number with thin spaces between its thousands."""
    return f"{round(n):,}".replace(",", "\u202f")
