"""Labelled pictures for zero-shot classification, from a folder of classes or from a table."""

import csv
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import InputError
from schemas.training import ZeroShot

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Labelled:
    """Files, the number of each one's class, the names of the classes, and sentences with {} for a name."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]


def read_labelled(asked: ZeroShot) -> Labelled:
    """The pictures that an evaluation names, in order of path. Raises InputError."""
    found = _in_folder(Path(asked.folder)) if asked.folder is not None else _in_table(Path(str(asked.table)))
    if not found:
        raise InputError(f"zeroshot {asked.name}: there are no labelled pictures in {asked.folder or asked.table}")
    names = sorted({label for _, label in found})
    spelled = _lines(asked.classes) if asked.classes is not None else tuple(name.replace("_", " ") for name in names)
    if len(spelled) != len(names):
        raise InputError(
            f"zeroshot {asked.name}: `classes` has {len(spelled)} names, the pictures have {len(names)} labels: "
            f"{', '.join(names[:20])}"
        )
    numbers = {name: number for number, name in enumerate(names)}
    files, labels = tuple(file for file, _ in found), tuple(numbers[label] for _, label in found)
    return Labelled(files, labels, spelled, _templates(asked))


def _templates(asked: ZeroShot) -> tuple[str, ...]:
    sentences = asked.templates
    if not isinstance(sentences, str) or "{}" not in sentences:
        sentences = _lines(sentences)
    templates = (sentences,) if isinstance(sentences, str) else sentences
    without = [template for template in templates if "{}" not in template]
    if without or not templates:
        which = repr(without[0]) if without else "the list"
        raise InputError(f"zeroshot {asked.name}: templates: {which} has no {{}} where the class's name stands")
    return templates


def _lines(given: tuple[str, ...] | str) -> tuple[str, ...]:
    """The names themselves, or the lines of the text file that is named."""
    if not isinstance(given, str):
        return given
    try:
        lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"zeroshot: {given!r} is taken for a text file and cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _in_folder(folder: Path) -> list[tuple[Path, str]]:
    if not folder.is_dir():
        raise InputError(f"zeroshot: there is no folder {folder}; it holds one sub-folder of pictures per class")
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in _SUFFIXES)
    return [(path, path.parent.name) for path in files]


def _in_table(table: Path) -> list[tuple[Path, str]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"zeroshot table {table}: cannot be read: {error}") from error
    for line, row in enumerate(rows, 2):
        if not row.get("file") or not row.get("label"):
            raise InputError(f"zeroshot table {table}: row {line} needs a file and a label; it has {row}")
        if not (table.parent / row["file"]).is_file():
            raise InputError(f"zeroshot table {table}: row {line}: there is no file {table.parent / row['file']}")
    return sorted((table.parent / row["file"], row["label"]) for row in rows)
