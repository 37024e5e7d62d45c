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

    For ``on_round`` of ``Refinement.run``. What keeps a page from being written is told once, and
    ends no fit, whatever it is.

    Parameters
    ----------
    folder : path
    configuration : mapping
    warn : function of a text
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], warn: Callable[[str], Any]):
        self._folder, self._configuration, self._warn = folder, configuration, warn
        self._cost, self._written = 0.0, -float("inf")
        self._told: set[str] = set()

    def __call__(self, fit: Refinement) -> None:
        """After a round of this fit."""
        start = time.perf_counter()
        if self._cost > _SHARE * (start - self._written):
            return
        try:
            content = page.fit_page(fit, self._folder.resolve().name, self._configuration)
            manifest_of(fit, self._folder).write({page.NAME: content})
        except Exception as error:
            what = str(error) if isinstance(error, DiffsimError | OSError) else repr(error)
            self._tell(f"warning: the page of a round was not written: {what}")
        self._written = time.perf_counter()
        self._cost = self._written - start

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._warn(text)
