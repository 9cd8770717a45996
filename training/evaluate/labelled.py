"""Labelled pictures for classification: whose label is which class, what the classes are called, and sentences."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import InputError
from schemas.training import Pictures, ZeroShot
from training.evaluate.pictures import Picture
from training.evaluate.sources import read_examples

_WHOLE_NUMBER = re.compile(r"[0-9]{1,6}\Z")


@dataclass(frozen=True)
class Labelled:
    """Pictures, the number of each one's class, the names of the classes, and sentences with {} for a name."""

    files: tuple[Picture, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = ()


def read_labelled(asked: ZeroShot) -> Labelled:
    """The pictures that an evaluation names, in order of path. Raises InputError."""
    what = f"zeroshot {asked.name}"
    pictures, words = read_pictures(asked, what)
    spelled = _classes(asked.classes) if asked.classes is not None else None
    in_files_of_many = asked.webdataset is not None or asked.parquet is not None
    if spelled is None and in_files_of_many and all(_WHOLE_NUMBER.match(word) for word in words):
        raise InputError(
            f"{what}: the labels in {asked.place} are numbers; name the classes in that order by `classes`"
        )
    numbers, names = number_classes(words, spelled, what)
    return Labelled(pictures, numbers, names, _templates(asked))


def read_pictures(asked: Pictures, what: str) -> tuple[tuple[Picture, ...], list[str]]:
    """Pictures and their labels as they are written. Raises InputError where one has none."""
    found = read_examples(asked, what)
    without = [example for example in found if example.label is None]
    if without:
        raise InputError(
            f"{what}: {len(without):,} of {len(found):,} pictures in {asked.place} have no label "
            f"(the first is {without[0].picture}); labels are sub-folders, .cls members, or a column `label`"
        )
    return tuple(example.picture for example in found), [str(example.label) for example in found]


def number_classes(
    words: Sequence[str], spelled: Sequence[str] | None, what: str
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Each label's class as a number, and the names of the classes.

    Where names are given, a label that is a whole number is a place among them; others are among them word for word,
    or the names stand in the order of the sorted labels.
    """
    whole = all(_WHOLE_NUMBER.match(word) for word in words)
    known = sorted(set(words), key=int if whole else None)  # 10 comes after 9
    if spelled is None:
        names = tuple(word.replace("_", " ") for word in known)
    elif whole and int(known[-1]) < len(spelled):
        return tuple(int(word) for word in words), tuple(spelled)
    elif set(known) <= set(spelled):
        known, names = list(spelled), tuple(spelled)
    elif len(spelled) == len(known):
        names = tuple(spelled)
    else:
        raise InputError(
            f"{what}: `classes` has {len(spelled)} names, the pictures have {len(known)} labels: "
            f"{', '.join(known[:20])}"
        )
    numbers = {word: number for number, word in enumerate(known)}
    return tuple(numbers[word] for word in words), names


def _classes(given: tuple[str, ...] | str) -> tuple[str, ...]:
    if given != "imagenet":
        return _lines(given)
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def _templates(asked: ZeroShot) -> tuple[str, ...]:
    given = asked.templates
    if given in ("openai", "simple"):
        import open_clip

        functions = {"openai": open_clip.OPENAI_IMAGENET_TEMPLATES, "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES}
        return tuple(function("{}") for function in functions[str(given)])
    sentences = (given,) if isinstance(given, str) and "{}" in given else _lines(given)
    templates = tuple(sentence.replace("{c}", "{}") for sentence in sentences)  # as CLIP_benchmark writes it
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
