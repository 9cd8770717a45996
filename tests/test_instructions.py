"""Files of conversations in the field's formats give the same turns; what is wrong in one is told with its entry."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import picture, write_set
from small_training import pairs
from small_training import write_set as write_columns

from schemas.errors import InputError
from schemas.generative import Captions
from schemas.generative import Instructions as Entry
from training.generative.conversations import Conversation, Picture, Unfit
from training.generative.instructions import Instructions
from training.generative.mixture import Captioned, open_sources, prompts_of
from training.generative.pictures import evenly

DATA_URL = f"data:image/png;base64,{base64.b64encode(picture(9)).decode()}"
LLAVA = {
    "id": "1",
    "image": "a.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ],
}
OPENAI = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "a.png"}},
                {"type": "text", "text": "What is it?"},
            ],
        },
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ]
}
SHAREGPT = {
    "images": ["a.png"],
    "messages": [
        {"role": "user", "content": "<image>What is it?"},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."},
    ],
}


def written(folder: Path, entries: Any, name: str = "mix.json") -> Path:
    for number in (1, 2, 3):
        (folder / f"{'abc'[number - 1]}.png").write_bytes(picture(number))
    path = folder / name
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    path.write_text("\n".join(lines) if name.endswith("l") else json.dumps(entries, indent=1), "utf-8")
    return path


def only(folder: Path, entry: Mapping[str, Any], **where: Any) -> Conversation:
    made = Instructions(written(folder, [entry]), folder, **where)
    assert made.rows == 1
    return made.conversation(0)


def said(conversation: Conversation) -> list[tuple[str, list[str]]]:
    """Roles and contents; pictures by their grey."""
    return [(turn.role, [_shown(one) for one in turn.contents]) for turn in conversation.turns]


def _shown(one: str | Picture) -> str:
    return one if isinstance(one, str) else f"#{'-'.join(str(frame[0, 0, 0]) for frame in one.read())}"


EXPECTED = [("user", ["#1", "What is it?"]), ("assistant", ["A cat."]), ("user", ["Sure?"]), ("assistant", ["Yes."])]


@pytest.mark.parametrize("name", ["mix.json", "mix.jsonl"])
@pytest.mark.parametrize("entry", [LLAVA, SHAREGPT, OPENAI], ids=["llava", "sharegpt", "openai"])
def test_formats_are_told_apart_by_what_is_in_them(tmp_path: Path, entry: Mapping[str, Any], name: str) -> None:
    made = Instructions(written(tmp_path, [entry, LLAVA], name), tmp_path)
    assert [said(made.conversation(number)) for number in range(made.rows)] == [EXPECTED, EXPECTED]


def test_several_pictures_stand_where_their_marks_are(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Compare <image> and\n<image>\nplease"},
        {"from": "gpt", "value": "Same."},
        {"from": "human", "value": "And <image>?"},
        {"from": "gpt", "value": "No."},
    ]
    found = only(tmp_path, {"image": ["a.png", "b.png", "c.png"], "conversations": turns})
    assert said(found) == [
        ("system", ["Be brief."]), ("user", ["Compare ", "#1", " and", "#2", "please"]), ("assistant", ["Same."]),
        ("user", ["And ", "#3", "?"]), ("assistant", ["No."]),
    ]  # fmt: skip


def test_a_picture_without_a_mark_is_shown_first(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    found = only(tmp_path, {"image": "b.png", "conversations": turns})
    assert said(found) == [("user", ["#2", "What?"]), ("assistant", ["A cat."])]


def test_turns_before_the_first_question_and_after_the_last_answer_are_left_out(tmp_path: Path) -> None:
    turns = [{"from": role, "value": role} for role in ("gpt", "human", "gpt", "human")]
    assert said(only(tmp_path, {"conversations": turns})) == [("user", ["human"]), ("assistant", ["gpt"])]


def test_a_mark_in_a_text_without_pictures_is_text(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "What does <image> mean?"}, {"from": "gpt", "value": "A tag."}]
    assert said(only(tmp_path, {"conversations": turns}))[0] == ("user", ["What does <image> mean?"])


def test_a_video_is_a_folder_of_frames_or_a_file_evenly_spread(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "clip").mkdir()
    for number in range(10):
        (tmp_path / "clip" / f"{number:03d}.png").write_bytes(picture(number))
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    for number in range(10):
        writer.write(np.full((32, 32, 3), 20 * number, np.uint8))
    writer.release()
    turns = [{"from": "human", "value": "<video>\nWhat happens?"}, {"from": "gpt", "value": "Dawn."}]
    found = only(tmp_path, {"video": "clip", "conversations": turns}, frames=4)
    assert said(found)[0] == ("user", ["#1-3-6-8", "What happens?"])
    assert found.pictures[0].video
    read = only(tmp_path, {"video": "clip.avi", "conversations": turns}, frames=4).pictures[0].read()
    assert [round(float(frame.mean()) / 20) for frame in read] == [1, 3, 6, 8]
    assert (evenly(10, 1), evenly(3, 8), evenly(0, 8)) == ([5], [0, 1, 2], [])


def test_pictures_lie_in_data_urls_and_in_a_curated_set_by_key_or_url(tmp_path: Path) -> None:
    rows = pairs(20)
    for number, (_, members) in enumerate(rows):
        members["png"] = picture(number)
        members["json"] = json.dumps({"url": f"http://x.example/{number}.jpg", "caption": "c"}).encode()
    curated = write_columns(tmp_path / "set", rows, per_shard=5, holdout=1)
    names = [DATA_URL, f"{7:032x}", "http://x.example/12.jpg", "http://x.example/99.jpg", f"{19:032x}"]
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    found = only(tmp_path, {"images": names, "conversations": turns}, curated_set=str(curated)).pictures
    assert [_shown(one) for one in found[:3]] == ["#9", "#7", "#12"]
    for one in found[3:]:  # a URL that is not there, and a row that is held out
        with pytest.raises(Unfit, match="the curated set has no such picture") as raised:
            one.read()
        assert raised.value.fault == "missing"


@pytest.mark.parametrize(
    ("name", "fault", "sentence"),
    [
        ("d.png", "missing", "d.png: cannot be read: No such file"),
        ("notes.png", "broken", "notes.png: the 5 bytes are no picture"),
        ("data:image/png;base64,AAAA", "broken", "the 3 bytes are no picture"),
        ("data:image/png;base64,A", "broken", "data: URL|data:image/png;base64,A…: "),
        ("data:text/plain,x", "broken", "is no base64 data: URL"),
    ],
)
def test_a_picture_that_cannot_be_seen_says_so_when_its_turn_comes(
    tmp_path: Path, name: str, fault: str, sentence: str
) -> None:
    (tmp_path / "notes.png").write_text("notes")
    [found] = only(tmp_path, LLAVA | {"image": name}).pictures
    with pytest.raises(Unfit, match=sentence) as raised:
        found.read()
    assert raised.value.fault == fault


def test_a_video_that_cannot_be_seen_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.mp4").write_text("no video")
    (tmp_path / "mixed").mkdir()
    for number, name in ((1, "a.png"), (2, "b.png")):
        (tmp_path / "mixed" / name).write_bytes(picture(number))
    from PIL import Image

    Image.new("RGB", (9, 9)).save(tmp_path / "mixed" / "b.png")
    for name, sentence in (
        ("empty", "has no frames that can be read"), ("no.mp4", "has no frames that can be read"),
        ("away.mp4", "there is no such video"), ("mixed", "its frames differ in size"),
    ):  # fmt: skip
        [found] = only(tmp_path, {"video": name, "conversations": LLAVA["conversations"][2:]}).pictures
        with pytest.raises(Unfit, match=sentence):
            found.read()


TURNS: Any = LLAVA["conversations"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"image": "a.png", "text": "x"}, "has no list of turns; it has: image, text; an entry is LLaVA's or ShareGPT"),
        ([1, 2], "is a list, no object"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "a turn is from 'tool'; known are human, user, gpt"),
        ({"conversations": [{"from": "human", "value": 3}]}, "what human says is a number, neither text nor a list"),
        ({"conversations": ["hello"]}, "a turn is a text, no object"),
        (LLAVA | {"image": ["a.png", "b.png"]}, "its turns have 1 <image>, but it names 2"),
        (LLAVA | {"video": "v"}, "its turns have 0 <video>, but it names 1"),
        (LLAVA | {"image": 7}, "image: is neither a name nor a list of names: 7"),
        (LLAVA | {"image": "../a.png"}, r"the picture '\.\./a\.png' does not lie in "),
        (LLAVA | {"image": "/etc/a.png"}, "the picture '/etc/a.png' does not lie in "),
        (LLAVA | {"image": "http://x.example/a.png"}, "is named by key or URL; say in which curated set it lies: set"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "is neither text nor image_url: "),
    ],
)
def test_a_wrong_entry_is_told_by_its_number(tmp_path: Path, entry: Any, sentence: str) -> None:
    path = written(tmp_path, [LLAVA, entry])
    with pytest.raises(InputError, match=rf"instructions .*mix\.json: entry 2: .*{sentence}"):
        Instructions(path, tmp_path)


def test_how_many_entries_are_wrong_is_told_with_the_first(tmp_path: Path) -> None:
    wrong = LLAVA | {"image": ["a.png", "b.png"]}
    with pytest.raises(InputError, match=r"entry 2: its turns .*\(2 other entries are wrong, too\)$"):
        Instructions(written(tmp_path, [LLAVA, wrong, LLAVA, wrong, wrong]), tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no entries; an entry is"),
        ("[]", "has no entries"),
        ('{"conversations": [}', "entry 1 is no JSON: line 1: "),
        (json.dumps(LLAVA) + "\n{oops}", "entry 2 is no JSON: line 2: "),
        ("[" + json.dumps(LLAVA), "the array has no end after entry 1; the file was cut short"),
        ("picture,caption\n", "entry 1 is no JSON: line 1"),
        (b"\xff\xfe\x00", "is no UTF-8 text at byte 0"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    path = tmp_path / "mix.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=sentence):
        Instructions(path, tmp_path)


def test_places_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"away\.json: cannot be read: No such file"):
        Instructions(tmp_path / "away.json", tmp_path)
    with pytest.raises(InputError, match=r"there is no folder .*away; say in `images`"):
        Instructions(written(tmp_path, [LLAVA]), tmp_path / "away")
    with pytest.raises(InputError, match=r"entry 1: the picture 'a\.png' is named by path; say in which folder"):
        Instructions(written(tmp_path, [LLAVA]))


def test_prompts_are_drawn_by_seed_row_and_epoch_alone(tmp_path: Path) -> None:
    curated = write_set(tmp_path / "set", range(20))
    (tmp_path / "prompts.txt").write_text("Describe.\n\n What is it? \nTell.\n")
    entry = Captions(set=str(curated), prompts=str(tmp_path / "prompts.txt"))
    [source] = open_sources([entry])

    def asked(start: int, count: int, seed: int = 0) -> list[tuple[str, ...]]:
        stream = source.from_row(start, (seed, 0), None)
        return [tuple(text for text in next(stream).texts) for _ in range(count)]

    first, second = asked(0, 20), asked(20, 20)
    assert {prompt for prompt, _ in first} == {"Describe.", "What is it?", "Tell."}
    assert sorted(caption for _, caption in first) == sorted(str(n) for n in range(20))
    assert dict(map(reversed, first)) != dict(map(reversed, second))  # type: ignore[arg-type]
    assert asked(0, 40) == first + second == asked(0, 7) + asked(7, 33)
    assert asked(0, 20, seed=1) != first


def test_a_stage_names_sets_and_files(tmp_path: Path) -> None:
    curated = write_set(tmp_path / "set", range(20))
    entries = (
        Captions(set=str(curated), weight=3),
        Entry(instructions=str(written(tmp_path, [LLAVA])), images=str(tmp_path), weight=2),
    )
    first, second = open_sources(entries)
    assert isinstance(first, Captioned)
    assert (first.weight, list(first.prompts), second.weight) == (3, ["Describe the image."], 2)


def test_what_a_source_holds_has_a_name_that_changes_with_it(tmp_path: Path) -> None:
    curated = str(write_set(tmp_path / "set", range(20)))

    def names(prompt: str, entries: Any) -> list[str]:
        file = Entry(instructions=str(written(tmp_path, entries)), images=str(tmp_path))
        return [source.identity for source in open_sources([Captions(set=curated, prompts=(prompt,)), file])]

    first, other = names("a", [LLAVA]), names("b", [LLAVA, LLAVA])
    assert first == names("a", [LLAVA])
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert first[0].startswith("set@v1 ")


def test_prompts_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.txt: has none; write one a line"):
        prompts_of(str(tmp_path / "empty.txt"))
    with pytest.raises(InputError, match=r"away\.txt: cannot be read: No such file"):
        prompts_of(str(tmp_path / "away.txt"))
    with pytest.raises(InputError, match="has none"):
        prompts_of(())
