"""How questions are put to a model, in the field's words (LLaVA-1.5, arXiv:2310.03744, appendix A.1)."""

from collections.abc import Sequence
from string import ascii_uppercase

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def short(question: str) -> str:
    """A question that a word or a phrase answers."""
    return f"{question}\n{SHORT}"


def choose(question: str, options: Sequence[str], hint: str = "") -> str:
    """A question with options, of which a letter is asked."""
    lines = [hint] if hint else []
    return "\n".join([*lines, question, *lettered(options), LETTER])


def lettered(options: Sequence[str], form: str = "{}. {}") -> list[str]:
    """Options with their letters."""
    return [form.format(letter, option) for letter, option in zip(ascii_uppercase, options, strict=False)]
