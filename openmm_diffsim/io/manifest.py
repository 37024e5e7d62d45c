"""What was written to a folder, and by whom: nothing else there is ever replaced."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import TakenError
from .files import atomic_write_bytes, write_json

NAME = "written.json"
_KIND = "openmm_diffsim: files written to this folder"


class Manifest:
    """The files that one owner wrote to a folder, by their checksums.

    They are kept in a file there, ``written.json``. What is about to be written is noted before,
    so after a kill at any moment each file is known.

    Parameters
    ----------
    folder : path
    owner : str
        What tells whose they are.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder = folder
        self.owner = owner

    def check(self, names: Iterable[str]) -> None:
        """Are these names free, or taken by what the owner wrote?

        Raises
        ------
        TakenError
            If not, or if the folder is another owner's.
        """
        known = self._known()
        for name in names:
            path = self.folder / name
            if os.path.lexists(path) and _checksum(path) not in known.get(name, ()):
                raise TakenError(
                    f"{path} would be overwritten, and this fit did not write it as it is there; "
                    "move it away, or choose another output folder",
                    path=path,
                )

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write all of them, each atomically.

        Raises
        ------
        TakenError
            As ``check``; nothing is written then.
        OSError
            If one cannot be written; it names the file.
        """
        self.check(files)
        known = self._known()
        new = {name: [hashlib.sha256(data).hexdigest()] for name, data in files.items()}
        self._note(known | {name: [*known.get(name, ()), *new[name]] for name in new})
        for name, data in files.items():
            atomic_write_bytes(self.folder / name, data)
        self._note(known | new)

    def _note(self, known: Mapping[str, list[str]]) -> None:
        content = {"what": _KIND, "owner": self.owner, "files": known}
        write_json(self.folder / NAME, content)

    def _known(self) -> dict[str, list[str]]:
        """Checksums of what the owner wrote, by name.

        Raises
        ------
        TakenError
            If the folder is another owner's, or there is another file of the manifest's name.
        """
        path = self.folder / NAME
        try:
            content = json.loads(path.read_bytes())
            if content["what"] == _KIND and content["owner"] == self.owner:
                return dict(content["files"])
        except FileNotFoundError:
            return {}
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        raise TakenError(
            f"{self.folder} is another fit's, or {path} is no list of what was written there: "
            "choose another output folder, or move the file away",
            path=path,
        )


def _checksum(path: Path) -> str:
    """Of a file; of what is none, or cannot be read, nothing that was ever noted."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
