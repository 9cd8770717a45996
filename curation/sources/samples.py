"""A picture with the files beside it (`.txt`, `.json`) becomes a row: the same in tars and in folders."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.operator import Failure
from curation.sources.json_fields import BrokenJson, FieldTypes, fitted, parse
from curation.sources.mapping import DEFAULT, assign
from curation.sources.source import CapturedRow
from schemas.errors import SourceError

TAKEN = ("jpg", "jpeg", "png", "webp", "gif", "avif")  # of two in one sample, the earlier
PICTURES = (*TAKEN, "bmp", "tif", "tiff")  # pictures too, but not decoded: their rows fail and say so
TEXTS = ("txt", "json")
PICTURE_BYTES = 64 << 20  # what is larger fails its row
TEXT_BYTES = 16 << 20
MAX_FIELDS = 1_000  # of JSON; where there are more, their names are data and no columns
TEXT_MEMBER = "txt"  # as `caption: txt`, the .txt whatever the JSON holds


@dataclass
class Sample:
    """The members of one stem, by extension (lower case). A value is None where it was not asked for."""

    origin: str
    stem: str = ""
    members: dict[str, bytes | None] = field(default_factory=dict)
    failure: Failure | None = None

    def fail(self, status: str, error: str) -> None:
        """Note why the sample is no sound row; the first reason stays."""
        self.failure = self.failure or Failure(status, error)

    @property
    def picture(self) -> str | None:
        """The extension of its picture."""
        return next((extension for extension in PICTURES if extension in self.members), None)


@dataclass(frozen=True)
class Shape:
    """How samples become rows: where URL and caption come from, and the columns that ride along. Picklable."""

    url: str | None  # a JSON field
    caption: str | None  # a JSON field; the .txt goes before it unless the field was asked for
    caption_asked: bool
    extra: Mapping[str, pa.DataType]
    fields: Mapping[str, str]  # JSON field by the column's name

    def row(self, sample: Sample) -> CapturedRow:
        """The row of a sample."""
        record = self._record(sample)
        caption = self._caption(sample, record)
        url = _text(record.get(self.url)) if self.url else None
        extension = sample.picture
        if extension is None:
            there = ", ".join(sample.members)
            sample.fail("no_picture", f"{sample.origin}: has no picture (only {there}); known are {', '.join(TAKEN)}")
        picture = sample.members[extension] if extension and not sample.failure else None
        extra = {name: fitted(record.get(self.fields[name]), kind) for name, kind in self.extra.items()}
        return CapturedRow(url, caption, picture, sample.origin, extra, sample.failure)

    def _record(self, sample: Sample) -> dict[str, Any]:
        data = sample.members.get("json")
        if data is None:
            return {}
        try:
            return parse(data)
        except BrokenJson as error:
            sample.fail("broken_json", f"{sample.origin}: its .json is {error}")
            return {}

    def _caption(self, sample: Sample, record: Mapping[str, Any]) -> str | None:
        data = sample.members.get("txt")
        if self.caption_asked or data is None:
            return _text(record.get(self.caption)) if self.caption else None
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            sample.fail("not_utf8", f"{sample.origin}: its .txt is not UTF-8, {error.reason} at byte {error.start}")
            return None


def shape_of(types: FieldTypes, columns: Mapping[str, str] | None, where: str) -> Shape:
    """How rows are made of samples whose JSON has these fields. Raises SourceError for columns that do not exist."""
    kinds = dict(types.types())
    asked = dict(columns or DEFAULT)
    from_text = asked.get("caption") == TEXT_MEMBER and TEXT_MEMBER not in kinds
    if from_text:
        del asked["caption"]
    assigned = assign(kinds, asked or {"url": "url"}, where, lenient=True)
    caption_asked = assigned.caption is not None and assigned.caption != DEFAULT["caption"]
    extra = {ours: kinds[theirs] for ours, theirs in assigned.extra.items()}
    caption = None if from_text else assigned.caption
    return Shape(assigned.url, caption, caption_asked, extra, assigned.extra)


def seen(samples: Iterable[Sample], types: FieldTypes) -> int:
    """Count samples, and note the types of their JSON fields."""
    count = 0
    for sample in samples:
        count += 1
        data = sample.members.get("json")
        if data is not None:
            try:
                types.see(parse(data))
            except BrokenJson:
                continue  # its row fails, with the reason, when it is read
            if len(types) > MAX_FIELDS:
                raise SourceError(f"{sample.origin}: the JSON has more than {MAX_FIELDS:,} different fields so far")
    return count


def _text(value: Any) -> str | None:
    return None if value is None else str(fitted(value, pa.string()))
