"""Scores by a vision-language model and a rubric: any server that speaks one of three protocols, or local weights."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from curation.models.chat.chat_operator import ChatOperator
from curation.models.chat.judgement import judgement_in, judgement_schema, request_for
from curation.models.chat.prompt import columns_in, literal
from curation.models.chat.question import Answer
from curation.operator import Failure
from schemas import columns as c
from schemas.columns import Column


class Judge(ChatOperator):
    """Scores each picture, or what a column says of it, by a rubric, with a vision-language model.

    The answer is asked for as JSON, by the protocol's own means where it has some (OpenAI's and Gemini's). What gives
    no score, or one off the scale, is a failed row: `unparsable`, `out_of_scale`. Servers and costs are as `caption`'s.
    """

    version: ClassVar[int] = 1

    rubric: str = Field(
        ...,
        description="what is judged, and how; {caption} stands for that column's value in the row, {{ for a brace",
        min_length=1,
        examples=["How well does this text describe the picture? Text: {caption}"],
    )
    scale: tuple[float, float] = Field((1.0, 5.0), description="the lowest and the highest score")

    @field_validator("rubric")
    @classmethod
    def _names_columns(cls, rubric: str) -> str:
        columns_in(rubric)
        return rubric

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.scale[0] < self.scale[1]:
            raise ValueError("scale: write the lowest score first, then a higher one, as in [1, 5]")
        return self

    @property
    def template(self) -> str:
        """The rubric, and how to answer."""
        return f"{self.rubric}\n\n{literal(request_for(*self.scale))}"

    @property
    def schema_of_answers(self) -> Mapping[str, Any]:
        """A reason and a score."""
        return judgement_schema()

    @property
    def adds(self) -> tuple[Column, ...]:
        """The score, why, and the tokens that it took."""
        return (c.JUDGE_SCORE, c.JUDGE_REASON, c.JUDGE_PROMPT_TOKENS, c.JUDGE_COMPLETION_TOKENS)

    def values(self, answer: Answer) -> Sequence[Any] | Failure:
        """The judgement that the answer holds."""
        found = judgement_in(answer.text, *self.scale)
        if isinstance(found, Failure):
            return found
        return found.score, found.reason, answer.prompt_tokens, answer.completion_tokens
