"""Reads what an evaluation names: pictures with labels and captions, from folders, tables, tars and Parquet files.

Only labels and captions are read here; a picture is read when a model needs it. Foreign tars are read leniently:
members that are no plain file, or of another extension, are passed over, and nothing is extracted.
"""

import csv
import glob
import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from schemas.errors import InputError
from schemas.manifest import find_manifest, read_manifest
from schemas.training import Pictures
from training.evaluate.pictures import InParquet, InTar

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LABEL, _CAPTION = "label", "caption"


@dataclass
class Example:
    """A picture, its label and captions, where it has any; `stored_sha256` where the same picture may come twice."""

    picture: Path | InTar | InParquet
    label: str | None = None
    captions: list[str] = field(default_factory=list)
    stored_sha256: str | None = None


def read_examples(asked: Pictures, what: str) -> list[Example]:
    """All that an evaluation names, in order. Raises InputError, which begins with `what`."""
    readers = {"folder": _in_folder, "table": _in_table, "webdataset": _in_tars, "parquet": _in_parquet, "set": _in_set}
    kind = next(kind for kind in readers if getattr(asked, kind) is not None)
    try:
        found = list(readers[kind](asked.place, asked))
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    except (OSError, ValueError, csv.Error, tarfile.TarError) as error:
        raise InputError(f"{what}: {asked.place} cannot be read: {error}") from error
    if not found:
        raise InputError(f"{what}: there are no pictures in {asked.place} ({', '.join(_SUFFIXES)})")
    return found


def _in_folder(place: str, _asked: Pictures) -> Iterator[Example]:
    """Pictures in sub-folders, which are their classes, or else in the folder; a .txt beside holds captions."""
    folder = Path(place)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; it holds one sub-folder of pictures per class")
    found = ([path for path in folder.glob(p) if path.suffix.lower() in _SUFFIXES] for p in ("*/*", "*"))
    for path in sorted(next(filter(None, found), [])):
        beside = path.with_suffix(".txt")
        captions = _lines(beside.read_text(encoding="utf-8-sig")) if beside.is_file() else []
        yield Example(path, None if path.parent == folder else path.parent.name, captions)


def _in_table(place: str, asked: Pictures) -> Iterator[Example]:
    """Rows of a CSV; several rows of one file give it several captions."""
    table = Path(place)
    with open(table, newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    label, caption = asked.label_column or _LABEL, asked.caption_column or _CAPTION
    by_file: dict[str, Example] = {}
    for line, row in enumerate(rows, 2):
        if not row.get("file") or not (row.get(label) or row.get(caption)):
            raise InputError(f"table {table}: row {line} needs a file and a {label} or a {caption}; it has {row}")
        path = table.parent / row["file"]
        if not path.is_file():
            raise InputError(f"table {table}: row {line}: there is no file {path}")
        example = by_file.setdefault(row["file"], Example(path, row.get(label) or None))
        example.captions += [row[caption]] if row.get(caption) else []
    yield from (by_file[name] for name in sorted(by_file))


def _in_tars(place: str, asked: Pictures) -> Iterator[Example]:
    for path in _matching(place):
        yield from _in_tar(path, asked, one_caption=False)


def _in_set(place: str, asked: Pictures) -> Iterator[Example]:
    """Shards of a curated set; pictures that are the same to the byte are one, with all their captions."""
    manifest = find_manifest(place)
    known = read_manifest(manifest)
    shards = known.holdout_shards if asked.shards == "holdout" else known.training_shards
    if not shards:
        raise InputError(
            f"data set {manifest}: has no {asked.shards} shards; `shards: {{holdout: {{rows: n}}}}` makes some"
        )
    by_picture: dict[str, Example] = {}
    for shard in shards:
        if shard.tar is None:
            raise InputError(f"data set {manifest}: has no pictures (shards.format is parquet)")
        path = manifest.parent / shard.tar
        with open(path, "rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != shard.tar_sha256:
                raise InputError(f"{path}: is not the file that {manifest} names (another SHA-256)")
        for example in _in_tar(path, asked, one_caption=True):
            same = by_picture.setdefault(str(example.stored_sha256), example)
            same.captions += example.captions if same is not example else []
    yield from by_picture.values()


def _in_tar(path: Path, asked: Pictures, *, one_caption: bool) -> Iterator[Example]:
    """Samples of a tar: runs of members with one stem."""
    with tarfile.open(path, "r:") as tar:
        stem, members = "", dict[str, Any]()
        for info in tar:
            folder, name = PurePosixPath(info.name).parent, PurePosixPath(info.name).name
            if not info.isfile() or "." not in name:
                continue
            first, extension = name.split(".", 1)
            if stem != f"{folder}/{first}":
                yield from _sample(members, asked, one_caption)
                stem, members = f"{folder}/{first}", {}
            if f".{extension.lower()}" in _SUFFIXES:
                members["picture"] = InTar(path, info.offset_data, info.size)
                if one_caption:
                    members["sha256"] = hashlib.sha256(_read(tar, info)).hexdigest()
            elif extension in ("cls", "txt", "json"):
                members[extension] = _read(tar, info).decode("utf-8")
        yield from _sample(members, asked, one_caption)


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(info)
    assert stream is not None, "a plain file"
    return stream.read()


def _sample(members: Mapping[str, Any], asked: Pictures, one_caption: bool) -> Iterator[Example]:
    if "picture" not in members:
        return
    fields = json.loads(members.get("json", "{}"))
    if not isinstance(fields, dict):
        raise ValueError(f"{members['picture']}: its .json is no object")
    label = members.get("cls") if asked.label_column is None else None
    label = fields.get(asked.label_column or _LABEL) if label is None else label.strip()
    if asked.caption_column is None and "txt" in members:
        captions = [members["txt"]] if one_caption else _lines(members["txt"])
    else:
        captions = _texts(fields.get(asked.caption_column or _CAPTION))
    yield Example(members["picture"], None if label is None else str(label), captions, members.get("sha256"))


def _in_parquet(place: str, asked: Pictures) -> Iterator[Example]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    label, caption = asked.label_column or _LABEL, asked.caption_column or _CAPTION
    for path in _matching(place):
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                missing = [n for n in (asked.image_column, asked.label_column, asked.caption_column) if n not in names]
                if any(missing):
                    there = ", ".join(names)
                    raise InputError(f"{path}: has no column {next(filter(None, missing))!r}; it has {there}")
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=[name for name in (label, caption) if name in names])
                    for row, value in enumerate(table.to_pylist()):
                        found = value.get(label)
                        picture = InParquet(path, asked.image_column, group, row)
                        yield Example(picture, None if found is None else str(found), _texts(value.get(caption)))
        except pa.ArrowException as error:
            raise InputError(f"{path}: cannot be read as Parquet: {error}") from error


def _matching(place: str) -> list[Path]:
    found = [Path(path) for path in sorted(glob.glob(place))] if glob.has_magic(place) else [Path(place)]
    missing = not found or not all(path.is_file() for path in found)
    if missing:
        raise InputError(f"there is no file {place}")
    return found


def _texts(value: Any) -> list[str]:
    """A text or a list of texts; empty ones say nothing."""
    given = value if isinstance(value, list) else [value]
    return [text for text in given if isinstance(text, str) and text.strip()]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
