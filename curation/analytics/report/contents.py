"""What a report consists of: sections of tables, plots and rows of pictures, as plain data without any form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """A column of a table; `kind` says how it is written: text, count, share (of 1), number, bytes or seconds."""

    name: str
    heading: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """Rows of values by column."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Rows

    def record(self) -> Any:
        """The rows as JSON values."""
        return [{column.name: row.get(column.name) for column in self.columns} for row in self.rows]


@dataclass(frozen=True)
class Plot:
    """Data for one of the kinds of plot in plots.py; `description` says in words what is seen, for who cannot see."""

    name: str
    title: str
    kind: str
    description: str
    rows: Rows
    settings: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> Any:
        """The data as JSON values."""
        return {**self.settings, "rows": list(self.rows)}


@dataclass(frozen=True)
class Picture:
    """A row that is shown: by its picture where there is one, its caption, and what is to be said of it."""

    key: str
    caption: str
    said: str


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other in named sides, such as kept and dropped."""

    name: str
    title: str
    sides: Mapping[str, tuple[Picture, ...]]

    def record(self) -> Any:
        """The rows as JSON values, without the pictures' bytes."""
        return {side: [vars(picture) for picture in pictures] for side, pictures in self.sides.items()}


@dataclass(frozen=True)
class Section:
    """One subject: what is to be known about it in words, then what there is to see."""

    anchor: str
    title: str
    text: tuple[str, ...]
    blocks: tuple[Table | Plot | Gallery, ...] = ()

    def record(self) -> dict[str, Any]:
        """The section as JSON values."""
        blocks: dict[str, dict[str, Any]] = {"tables": {}, "plots": {}, "pictures": {}}
        places = {Table: "tables", Plot: "plots", Gallery: "pictures"}
        for block in self.blocks:
            blocks[places[type(block)]][block.name] = block.record()
        return {"title": self.title, "text": list(self.text)} | {name: found for name, found in blocks.items() if found}


@dataclass(frozen=True)
class Report:
    """Everything that is told of one version."""

    name: str
    version: str
    summary: str
    facts: Mapping[str, int]
    sections: tuple[Section, ...]

    @property
    def keys(self) -> list[str]:
        """The keys of all rows that are shown, each once."""
        galleries = (block for section in self.sections for block in section.blocks if isinstance(block, Gallery))
        pictures = (picture for gallery in galleries for side in gallery.sides.values() for picture in side)
        return list(dict.fromkeys(picture.key for picture in pictures))

    def record(self) -> dict[str, Any]:
        """The report as JSON values: sections by anchor."""
        head = {"name": self.name, "version": self.version, "facts": dict(self.facts)}
        return head | {"sections": {section.anchor: section.record() for section in self.sections}}
