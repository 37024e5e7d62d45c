"""The page of a fit that runs, as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import DiffsimError
from ..io.checksum import text_checksum
from ..io.manifest import Manifest
from ..refinement import Refinement
from . import page

_SHARE = 0.02  # of the time of a fit, at most, for its page


def manifest_of(fit: Refinement, folder: Path) -> Manifest:
    """Of what the fit wrote, which is known by its identity."""
    return Manifest(folder, text_checksum(json.dumps(fit.identity, sort_keys=True)))


class RunningPage:
    """Writes report.html after a round; left out where that would take too much of the time.

    For ``on_round`` of ``Refinement.run``. A page that cannot be written is told once, and ends no
    fit.

    Parameters
    ----------
    folder : path
    configuration : mapping
    warn : function of a text
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], warn: Callable[[str], Any]):
        self._folder, self._configuration, self._warn = folder, configuration, warn
        self._cost, self._written = 0.0, -float("inf")

    def __call__(self, fit: Refinement) -> None:
        """After a round of this fit."""
        start = time.perf_counter()
        if self._cost > _SHARE * (start - self._written):
            return
        try:
            content = page.fit_page(fit, self._folder.resolve().name, self._configuration)
            manifest_of(fit, self._folder).write({page.NAME: content})
        except (DiffsimError, OSError) as error:
            self._warn(f"warning: the page of this round was not written: {error}")
            self._cost = float("inf")
            return
        self._written = time.perf_counter()
        self._cost = self._written - start
