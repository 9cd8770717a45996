"""A store that is read and never written: what is put goes into a folder of its own, and is read from there."""

from pathlib import Path
from typing import Any, NoReturn

from curation.storage.store import Store
from schemas.errors import RunError

_CAPTURED = "captured/"


class Overlay(Store):
    """A store seen through a folder that takes everything which is put; who uses it sees both as one.

    What only a run may compute is refused with a RunError, and noted as `lacking`. Such are captured vectors, whose
    first commit stands: others could be trained here than the run will train. With `refuse_training` they are refused
    before they are trained.
    """

    def __init__(self, below: Store, folder: Path, *, refuse_training: bool) -> None:
        super().__init__(folder)
        self._below = below
        self._own = Store(folder)
        self._refuse_training = refuse_training
        self.lacking = ""

    def path(self, name: str) -> Path:
        """Where a name lies: in the folder, unless only the store has such a file."""
        own, below = self._own.path(name), self._below.path(name)
        return below if below.is_file() and not own.exists() else own

    def get(self, name: str) -> Any:
        """The record of that name, or None."""
        record = super().get(name)
        if record is None and self._refuse_training and name.startswith(_CAPTURED):
            self._refuse_captured()
        return record

    def put(self, name: str, record: Any) -> bool:
        """Put a record into the folder if neither has one of that name."""
        if name.startswith(_CAPTURED):
            self._refuse_captured()
        return super().put(name, record)

    def link(self, path: Path, name: str) -> bool:
        """Link a file into the folder if the name is free in both."""
        return not self._below.path(name).exists() and self._own.link(path, name)

    def refuse(self, lacking: str) -> NoReturn:
        """Say that something is not there which only a run computes."""
        self.lacking = lacking
        raise RunError(lacking)

    def _refuse_captured(self) -> NoReturn:
        self.refuse("the centroids of its cells are not in the store; `pairmill run` would train them")
