"""judge: scores by a rubric, asked for as JSON and read with patience."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from chat_server import KEY, ChatServer, Reply, answer, chat_server, refusal
from conftest import textured_jpeg
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.models.chat.judgement import Judgement, judgement_in
from curation.operator import Batch, Failure, Output
from curation.operators.judge import Judge

GOOD = '{"reason": "It fits.", "score": 4}'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with chat_server(say=lambda asked: GOOD) as found:
        yield found


def judged(server: ChatServer, captions: list[str | None], protocol: str = "openai", **more: Any) -> Output:
    keys = [f"{n:032x}" for n in range(len(captions))]
    table = pa.table({"key": keys, "caption": pa.array(captions, pa.string())})
    operator = Judge(**server.step(protocol, rubric="Does it fit? {caption}", concurrency=1) | more)
    return operator.run(Batch(table, [textured_jpeg(n) for n in range(len(captions))]), operator.open())


@pytest.mark.parametrize("protocol", ["openai", "anthropic", "gemini"])
def test_each_protocol_is_asked_for_json_by_its_own_means(server: ChatServer, protocol: str) -> None:
    found = judged(server, ["a dog", None], protocol)
    assert server.violations == []
    assert not found.failures
    assert list(found.values["judge_score"]) == [4.0, 4.0]
    assert list(found.values["judge_reason"]) == ["It fits."] * 2
    assert list(found.values["judge_prompt_tokens"]) == [100, 100]
    assert list(found.values["judge_completion_tokens"]) == [5, 5]
    body, prompt = server.asked[0].body, server.asked[0].prompt
    assert prompt.startswith("Does it fit? a dog\n\nGive a score from 1 (worst) to 5 (best).")
    assert '{"reason": "<one sentence>", "score": <number>}' in prompt
    if protocol == "openai":
        schema = body["response_format"]["json_schema"]["schema"]
        assert schema["required"] == list(schema["properties"]) == ["reason", "score"]
    if protocol == "gemini":
        assert body["generationConfig"]["responseMimeType"] == "application/json"
        assert list(body["generationConfig"]["responseSchema"]["properties"]) == ["reason", "score"]


def test_what_gives_no_score_or_one_off_the_scale_fails_its_row_with_its_class(server: ChatServer) -> None:
    texts = [GOOD, '{"reason": "x", "score": 6}', '{"reason": "a good', "It is lovely.", ""]
    server.next.extend(Reply(200, answer("openai", text)) for text in texts)
    server.next.append(Reply(200, refusal("openai")))
    found = judged(server, ["x"] * 7)
    assert {row: failure.status for row, failure in found.failures.items()} == {
        1: "out_of_scale", 2: "unparsable", 3: "unparsable", 4: "empty_answer", 5: "refused",
    }  # fmt: skip
    assert found.failures[1].error == "the score 6 lies outside of 1 to 5"


def test_the_scale_is_the_users(server: ChatServer) -> None:
    found = judged(server, ["x"], scale=(-1, 4))
    assert "from -1 (worst) to 4 (best)" in server.asked[0].prompt
    assert list(found.values["judge_score"]) == [4.0]
    assert judged(server, ["x"], scale=(0, 3)).failures[0].status == "out_of_scale"


@pytest.mark.parametrize("scale", [(5, 1), (1, 1), (float("nan"), 1)])
def test_a_scale_that_does_not_rise_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="lowest score first"):
        Judge(rubric="x", scale=scale)


@pytest.mark.parametrize(
    ("text", "score", "reason"),
    [
        (GOOD, 4, "It fits."),
        ('```json\n{"score": "3.5", "reason": " ok "}\n```', 3.5, "ok"),
        ('Sure! {"score": 2} Hope that helps with your 3 pictures.', 2, None),
        ('{"thought": "hm"} {"score": 1, "reason": ""}', 1, None),
        ('{"reason": "has {braces} in it", "score": 5}', 5, "has {braces} in it"),
        ("4", 4, "4"),
        ("4/5", 4, "4/5"),
        ("**Score:** 3\nThere are 2 dogs, 1 cat.", 3, "**Score:** 3\nThere are 2 dogs, 1 cat."),
        ("I give it 4 out of 5: 2 dogs are named.", 4, "I give it 4 out of 5: 2 dogs are named."),
        ("The score is 4.", 4, "The score is 4."),
        ("score=2.5", 2.5, "score=2.5"),
    ],
)
def test_a_score_is_found_where_a_reader_finds_one(text: str, score: float, reason: str | None) -> None:
    assert judgement_in(text, 1, 5) == Judgement(score, reason)


@pytest.mark.parametrize(
    "text", ["", "no idea", "2 dogs and 3 cats", "Score: 3, or score: 4", '{"score": true}', '{"score": NaN}',
             '{"score": null}', '{"score": "high"}', "version2", "1e400x", "[" * 9999, '{"score": 1e999}']
)  # fmt: skip
def test_where_a_reader_finds_none_there_is_none(text: str) -> None:
    found = judgement_in(text, 1, 5)
    assert isinstance(found, Failure)
    assert found.status == "unparsable"


@given(st.text() | st.text(alphabet='{}":0123456789.-/ scoreOf\n'))
def test_no_text_breaks_the_reader_and_no_score_lies_off_the_scale(text: str) -> None:
    found = judgement_in(text, 1, 5)
    assert isinstance(found, Failure) or 1 <= found.score <= 5
