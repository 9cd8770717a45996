"""Operators over captions and headers: caption_stats, language, inspect_image and derive."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from curation.operator import Batch
from curation.operators.caption_stats import CaptionStats
from curation.operators.derive import Derive
from curation.operators.inspect_image import InspectImage
from curation.operators.language import Language
from schemas.errors import InputError

UNUSUAL = ["", None, "\0", "\n\n", "a\0b", "\u200b", "💥", "12345", "'; --", "\ufeff", "__label__xx", "\U0010ffff"]


def captions(*texts: str | None) -> Batch:
    keys = [f"{n:032x}" for n in range(len(texts))]
    return Batch(pa.table({"key": keys, "caption": pa.array(texts, pa.string())}))


def picture(mode: str, size: tuple[int, int], kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


def pictures(*stored: bytes) -> Batch:
    return Batch(pa.table({"key": [f"{n:032x}" for n in range(len(stored))]}), list(stored))


@pytest.fixture(scope="module")
def detector():
    return Language().open()


def detected(detector, *texts: str | None) -> list[str | None]:
    return list(Language().run(captions(*texts), detector).values["language"])


def test_characters_are_code_points_and_words_are_split_at_white_space():
    found = CaptionStats().run(
        captions("a  black\tdog\n", "é", "e\u0301", "🏳️‍🌈", "日本語", "a\0b", " ", "", None), None
    )
    assert found.values["caption_chars"] == [13, 1, 2, 4, 3, 3, 1, 0, 0]
    assert found.values["caption_words"] == [3, 1, 1, 1, 1, 1, 0, 0, 0]
    assert not found.failures


@pytest.mark.parametrize(
    ("language", "caption"),
    [
        ("en", "a dog is running on the beach"),
        ("en", "A DOG IS RUNNING ON THE BEACH"),
        ("en", "a dog is\nrunning\0on the beach\r\n"),
        ("de", "ein Hund läuft am Strand entlang"),
        ("fr", "un chien court sur la plage"),
        ("ja", "犬がビーチを走っている"),
        ("ru", "собака бежит по пляжу"),
        ("ar", "كلب يركض على الشاطئ"),
    ],
)
def test_the_language_of_a_caption_is_found(detector, language, caption):
    assert detected(detector, caption) == [language]


def test_the_score_is_a_probability_and_golden(detector):
    found = Language().run(captions("a dog is running on the beach", "", "ein Hund läuft am Strand entlang"), detector)
    scores = list(found.values["language_score"])
    assert scores[1] is None
    assert np.allclose([scores[0], scores[2]], [0.938191, 0.986507], atol=1e-5)


def test_a_caption_without_text_has_no_language_and_does_not_fail(detector):
    found = Language().run(captions("", None, " \n\t", "\0"), detector)
    assert list(found.values["language"]) == [None] * 4
    assert list(found.values["language_score"]) == [None] * 4
    assert not found.failures


def test_unusual_captions_neither_raise_nor_change_their_neighbours(detector):
    found = detected(detector, *UNUSUAL, "ein Hund läuft am Strand entlang")
    assert len(found) == len(UNUSUAL) + 1
    assert found[-1] == "de"
    assert found == [detected(detector, text)[0] for text in (*UNUSUAL, "ein Hund läuft am Strand entlang")]


def test_a_megabyte_of_caption_costs_no_time_to_speak_of(detector):
    assert detected(detector, "ein Hund läuft am Strand entlang " * 30_000, " " * 1_000_000) == ["de", None]


def test_the_digest_of_the_language_model_is_that_of_the_wheel():
    assert len(Language().weights_digest()) == 64


def test_sizes_and_format_are_those_of_the_header():
    stored = [
        picture("RGB", (40, 30), "JPEG"),
        picture("RGBA", (7, 9), "PNG"),
        picture("L", (1, 1), "WEBP"),
        b"no picture",
        picture("RGB", (40, 30), "JPEG")[:20],
        b"",
    ]
    found = InspectImage().run(pictures(*stored), None)
    assert found.values["width_px"] == [40, 7, 1, None, None, None]
    assert found.values["height_px"] == [30, 9, 1, None, None, None]
    assert found.values["format"] == ["jpg", "png", "webp", None, None, None]
    assert found.values["size_bytes"][:3] == [len(data) for data in stored[:3]]
    assert {row: failure.status for row, failure in found.failures.items()} == {
        3: "not_an_image",
        4: "decode_error",
        5: "not_an_image",
    }


def test_derived_columns_have_the_types_that_duckdb_binds():
    derive = Derive(aspect="width_px / height_px", wide="width_px > height_px", one=1)
    types = {"key": pa.string(), "width_px": pa.int32(), "height_px": pa.int32(), "caption": pa.string()}
    bound = pickle.loads(pickle.dumps(derive.bound(types)))
    assert [(column.name, column.type) for column in bound.adds] == [
        ("aspect", pa.float64()),
        ("wide", pa.bool_()),
        ("one", pa.int32()),
    ]
    assert [column.name for column in bound.reads] == ["height_px", "width_px"]
    assert not derive.adds
    table = pa.table({"key": ["a", "b"], "width_px": [4, None], "height_px": [2, 1]})
    values = bound.run(Batch(table), None).values
    assert {name: column.to_pylist() for name, column in values.items()} == {
        "aspect": [2.0, None],
        "wide": [True, None],
        "one": [1, 1],
    }


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": "capton"}, 'Referenced column "capton" not found. Candidates: "caption"'),
        ({"a": "caption", "b": "a"}, 'Referenced column "a" not found'),
        ({"a": "null"}, "a is of type null, which cannot be stored; cast it"),
        ({"a": "[]"}, "cannot be stored"),
        ({"a": "interval 1 day"}, "cannot be stored"),
        ({"a": "random()"}, "does not give the same value every time"),
    ],
)
def test_what_cannot_be_derived_is_refused_when_it_is_bound(columns, said):
    with pytest.raises(InputError) as raised:
        Derive(**columns).bound({"key": pa.string(), "caption": pa.string()})
    assert said in str(raised.value)


def test_structs_and_lists_can_be_derived():
    (column,) = Derive(a="{'nullable': [caption]}").bound({"caption": pa.string()}).adds
    assert pa.types.is_struct(column.type)


@pytest.mark.parametrize("columns", [{}, {"a b": "1"}, {'a"': "1"}, {"": "1"}, {"a": None}, {"a": ["1"]}])
def test_what_is_no_column_or_no_sql_is_refused(columns):
    with pytest.raises(ValidationError):
        Derive(**columns)


def test_an_error_on_a_row_names_its_key_and_is_not_one_of_the_part():
    bound = Derive(n="caption::int").bound({"key": pa.string(), "caption": pa.string()})
    with pytest.raises(ValueError, match=f"on the row with key {1:032x}"):
        bound.run(captions("1", "x"), None)
