"""Chat templates: the one that a specification names, the tokenizer's own, or the family's.

A template marks with `{% generation %}` what the assistant says: that is what is learnt.
"""

from pathlib import Path
from typing import Any

from schemas.errors import InputError
from training.generative.families import Family

_FOLDER = Path(__file__).with_name("templates")
_SAID = "said"  # how the parts of a message are written, which all templates share


def chat_template(family: Family, config: Any, tokenizer: Any, named: str | None, present: str | None) -> str:
    """The template's text: of the file `named`, or `present` where it can be trained with, or the family's default.

    Raises InputError where the file cannot be read or marks no answer, or where the default lacks a token.
    """
    if named is not None:
        try:
            text = Path(named).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"template {named}: cannot be read: {getattr(error, 'strerror', error)}") from error
        if not marks_answers(text):
            raise InputError(
                f"template {named}: does not mark what the assistant says; put it between {{% generation %}} and "
                f"{{% endgeneration %}}, as templates/{family.template}.jinja of training/generative does"
            )
        return text
    if present is not None and marks_answers(present) and "image" in present:
        return present
    text = _read(_SAID) + _read(family.template)
    for token in ("bos_token", "eos_token"):
        if token in text and getattr(tokenizer, token) is None:
            raise InputError(
                f"tokenizer: has no chat template that marks answers, and no {token}, which the default of "
                f"{family.name} needs; name a `template`"
            )
    image = family.image * getattr(config, "num_query_tokens", 1)  # of BLIP-2, whose processor leaves it to us
    return text.replace("@IMAGE@", _quoted(image)).replace("@VIDEO@", _quoted(family.video))


def marks_answers(template: str) -> bool:
    """Whether a template says which part of it is the assistant's."""
    return "endgeneration" in template


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def _quoted(text: str) -> str:
    """As it stands between quotes in Jinja."""
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
