"""Prompts that name columns: `Describe the picture. Its old caption: {caption}`."""

import string
from collections.abc import Mapping
from typing import Any


def columns_in(template: str) -> tuple[str, ...]:
    """The columns that a prompt names, each once. Raises ValueError for a brace that begins no column's name."""
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}; write {{{{ and }}}} for braces that stand for themselves") from error
    for _, name, form, conversion in pieces:
        if name is not None and (form or conversion or not name.isidentifier()):
            raise ValueError(f"{{{name}}} is no column; write {{{{ and }}}} for braces that stand for themselves")
    return tuple(dict.fromkeys(name for _, name, _, _ in pieces if name is not None))


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The prompt for one row; a missing value is an empty text."""
    return template.format_map({name: "" if value is None else value for name, value in values.items()})


def literal(text: str) -> str:
    """A text as a prompt that names no column."""
    return text.replace("{", "{{").replace("}", "}}")
