"""Captions by a vision-language model: any server that speaks one of three protocols, or local weights."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from curation.models.chat.chat_operator import ChatOperator
from curation.models.chat.prompt import columns_in
from curation.models.chat.question import Answer
from schemas import columns as c
from schemas.columns import Column


class Caption(ChatOperator):
    """Asks a vision-language model (a server's, or local weights) to describe each picture.

    A server is anything that speaks OpenAI's chat completions, Anthropic's messages or Gemini's generateContent; its
    URL is the user's own choice, so private addresses are allowed. Answers are kept in the store by what was asked.
    Tokens are those of a row's answer: rows with the same picture and prompt share one that was paid once.
    """

    version: ClassVar[int] = 1

    prompt: str = Field(
        "Describe this picture in one or two sentences. Say only what can be seen in it.",
        description="what is asked; {caption} stands for that column's value in the row, {{ for a brace",
        min_length=1,
    )

    @field_validator("prompt")
    @classmethod
    def _names_columns(cls, prompt: str) -> str:
        columns_in(prompt)
        return prompt

    @property
    def template(self) -> str:
        """The prompt."""
        return self.prompt

    @property
    def adds(self) -> tuple[Column, ...]:
        """The caption, and the tokens that it took."""
        return (c.VLM_CAPTION, c.CAPTION_PROMPT_TOKENS, c.CAPTION_COMPLETION_TOKENS)

    def values(self, answer: Answer) -> Sequence[Any]:
        """The answer's text without white space around it; one that max_tokens cut is kept."""
        return answer.text.strip(), answer.prompt_tokens, answer.completion_tokens
