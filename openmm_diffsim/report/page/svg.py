"""Line plots as SVG that stands in a page: its fonts and colours are those of the page.

What is drawn has classes, such as "line c0", which the style sheet gives colours, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

WIDTH, HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 18, 28, 42
_BEYOND = 40.0  # how far outside the panel a clipped line goes on
_STEPS = np.array([1.0, 2.0, 5.0, 10.0])


class Plot:
    """One panel with two axes, drawn into from back to front.

    Parameters
    ----------
    title, description : str
        For who does not see it: what is shown, and what it shows.
    x, y : str
        Labels of the axes.
    x_range, y_range : (float, float)
    log : bool
        Is y on a logarithmic scale?
    height : int
        Of the whole figure, where its width is ``WIDTH``.
    whole : bool
        Does x count something?
    """

    def __init__(
        self,
        title: str,
        description: str,
        x: str,
        y: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        log: bool = False,
        height: int = HEIGHT,
        whole: bool = False,
    ) -> None:
        self.title, self.description = title, description
        self.log, self.height = log, height
        self._whole = whole
        self._labels = x, y
        self._x, self._y = _apart(x_range), _apart(y_range)
        if log:
            self._y = _decades(self._y)
        self._marks: list[str] = []

    def line(self, x: ArrayLike, y: ArrayLike, kind: str = "c0") -> None:
        """Through all points; NaN interrupts it."""
        self._add("path", f"line {kind}", d=self._path(x, y))

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str = "c0") -> None:
        """Between two lines."""
        q, below, above = (np.asarray(a, dtype=float) for a in (x, low, high))
        known = np.isfinite(below) & np.isfinite(above)
        if known.any():
            q, below, above = q[known], below[known], above[known]
            around = np.concatenate([q, q[::-1]]), np.concatenate([above, below[::-1]])
            self._add("path", f"band {kind}", d=self._path(*around) + "Z")

    def points(self, x: ArrayLike, y: ArrayLike, kind: str, error: ArrayLike | None = None) -> None:
        """Dots, with bars of so much up and down."""
        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        if error is not None:
            error = np.asarray(error, dtype=float)
            below, above = self._places(x, y - error), self._places(x, y + error)
            bars = [
                f"M{a} V{b.split(',')[1]}" for a, b in zip(below, above, strict=True) if a and b
            ]
            self._add("path", f"bars {kind}", d="".join(bars))
        dots = [f"M{place}h0" for place in self._places(x, y) if place]
        self._add("path", f"dots {kind}", d="".join(dots))

    def rule(self, y: float) -> None:
        """A thin line across."""
        self._add("path", "rule", d=self._path(self._x, (y, y)))

    def shade(self, low: float, high: float, upright: bool = True) -> None:
        """A grey area between two x, or two y."""
        ends = ((low, high), self._y) if upright else (self._x, (low, high))
        (x0, x1), (y0, y1) = self._across(np.array(ends[0])), self._up(np.array(ends[1]))
        left, width = min(x0, x1), abs(x1 - x0)
        top, tall = min(y0, y1), abs(y1 - y0)
        self._add("rect", "shade", x=f"{left:.1f}", y=f"{top:.1f}", width=f"{width:.1f}",
                  height=f"{tall:.1f}")  # fmt: skip

    def svg(self) -> Markup:
        """The figure as an element of a page."""
        inner, tall = WIDTH - _LEFT - _RIGHT, self._inner_height
        about = f"{escape(self.title)}. {escape(self.description)}"
        return Markup(
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{about}">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.description)}</desc>"
            f"{self._frame()}"
            f'<svg x="{_LEFT}" y="{_TOP}" width="{inner}" height="{tall}" '
            f'overflow="hidden" aria-hidden="true">{"".join(self._marks)}</svg></svg>'
        )

    @property
    def _inner_height(self) -> int:
        return self.height - _TOP - _BOTTOM

    def _frame(self) -> str:
        """Axes, ticks and labels."""
        x_label, y_label = self._labels
        bottom = self.height - _BOTTOM
        parts = [f'<path class="axes" d="M{_LEFT},{_TOP}V{bottom}H{WIDTH - _RIGHT}"/>']
        for value in ticks(*self._x, n=6, whole=self._whole):
            x = _LEFT + float(self._across(np.array(value)))
            parts.append(f'<path class="axes" d="M{x:.1f},{bottom}v4"/>')
            parts.append(_text(x, bottom + 17, _shown(value, self._x), "middle"))
        levels = log_ticks(*self._y) if self.log else ticks(*self._y, n=5)
        for value in levels:
            y = _TOP + float(self._up(np.array(value)))
            text = f"{value:g}" if self.log else _shown(value, self._y)
            parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f}H{WIDTH - _RIGHT}"/>')
            parts.append(_text(_LEFT - 6, y + 4, text, "end"))
        parts.append(_text(4, 14, y_label, "start", "label"))
        parts.append(_text(WIDTH - _RIGHT, self.height - 6, x_label, "end", "label"))
        return "".join(parts)

    def _add(self, name: str, kind: str, **attributes: str) -> None:
        rest = " ".join(f'{key}="{value}"' for key, value in attributes.items())
        self._marks.append(f'<{name} class="{kind}" {rest}/>')

    def _path(self, x: ArrayLike, y: ArrayLike) -> str:
        """Points that are not known are left out, and interrupt it."""
        parts, draws = [], "M"
        for place in self._places(x, y):
            parts.append(f"{draws}{place}" if place else "")
            draws = "L" if place else "M"
        return "".join(parts)

    def _places(self, x: ArrayLike, y: ArrayLike) -> list[str]:
        """Of all points, empty where they are not known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b = self._across(np.asarray(x, dtype=float)), self._up(np.asarray(y, dtype=float))
        b = np.clip(b, -_BEYOND, self._inner_height + _BEYOND)
        known = np.isfinite(a) & np.isfinite(b)
        pairs = zip(a.tolist(), b.tolist(), known.tolist(), strict=True)
        return [f"{p:.1f},{q:.1f}" if is_known else "" for p, q, is_known in pairs]

    def _across(self, x: Array) -> Array:
        low, high = self._x
        return (x - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def _up(self, y: Array) -> Array:
        low, high = self._y
        if self.log:
            y, low, high = np.log10(y), float(np.log10(low)), float(np.log10(high))
        return (high - y) / (high - low) * self._inner_height


def ticks(low: float, high: float, n: int, whole: bool = False) -> list[float]:
    """Round numbers between, about n."""
    rough = (high - low) / n
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(power * _STEPS[np.searchsorted(_STEPS, rough / power * (1 - 1e-9))])
    step = max(step, 1.0) if whole else step
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; powers alone where these are many."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    factors: Sequence[int] = (1, 2, 5) if last - first <= 3 else (1,)
    found = [f * 10.0**k for k in range(first, last + 1) for f in factors]
    stride = max(1, round(len(found) / 8)) if len(factors) == 1 else 1
    return [v for v in found[::stride] if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


def _apart(ends: tuple[float, float]) -> tuple[float, float]:
    """Two ends of an axis that are numbers and differ."""
    low, high = (float(end) for end in ends)
    if not (np.isfinite(low) and np.isfinite(high)):
        return 0.0, 1.0
    if high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        return low, high
    return low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)


def _decades(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    high = high if high > 0 else 1.0
    return (low if 0 < low < high else 0.1 * high), high


def _shown(value: float, ends: tuple[float, float]) -> str:
    span = max(abs(end) for end in ends)
    if span >= 1e5 or span < 1e-3:
        return f"{value:.3g}"
    digits = max(0, 2 - int(np.floor(np.log10(ends[1] - ends[0]))))
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text.replace("-", "−")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
