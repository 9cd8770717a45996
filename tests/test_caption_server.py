"""caption against a server that speaks the three protocols strictly, and misbehaves on order."""

import hashlib
import io
import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from chat_server import KEY, MODEL, ChatServer, Reply, answer, chat_server, refusal
from conftest import textured_jpeg
from PIL import Image

from curation.models.chat.question import Answers, question_about
from curation.models.chat.refused_requests import PASSING
from curation.operator import Batch, Failure, Output, Workplace
from curation.operators.caption import Caption
from curation.storage.store import Store
from schemas.errors import InputError, RunError

PROTOCOLS = ("openai", "anthropic", "gemini")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with chat_server() as found:
        yield found


def in_format(name: str, seed: int) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(textured_jpeg(seed))).save(out, name)
    return out.getvalue()


def batch(pictures: list[bytes], **columns: list[Any]) -> Batch:
    keys = [f"{n:032x}" for n in range(len(pictures))]
    return Batch(pa.table({"key": keys} | columns), pictures)


def run(operator: Caption, rows: Batch, store: Store | None = None) -> Output:
    return operator.run(rows, operator.open_at(Workplace(store)))


def captioned(server: ChatServer, rows: Batch, protocol: str = "openai", **more: Any) -> Output:
    return run(Caption(**server.step(protocol, **more)), rows)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_is_asked_as_its_reference_says_and_its_answer_read(server: ChatServer, protocol: str) -> None:
    pictures = [textured_jpeg(1), in_format("PNG", 2), in_format("WEBP", 3)]
    server.say = lambda asked: f"  a picture {asked.picture_sha256[:6]}\n"
    found = captioned(server, batch(pictures), protocol, prompt="Describe it.", max_tokens=77)
    assert server.violations == []
    assert not found.failures
    said = [f"a picture {hashlib.sha256(picture).hexdigest()[:6]}" for picture in pictures]
    assert list(found.values["vlm_caption"]) == said
    assert list(found.values["caption_prompt_tokens"]) == [100, 100, 100]
    assert list(found.values["caption_completion_tokens"]) == [3, 3, 3]
    assert {(one.protocol, one.prompt) for one in server.asked} == {(protocol, "Describe it.")}
    assert {one.picture for one in server.asked} == set(pictures)
    flat = [one.body | one.body.get("generationConfig", {}) for one in server.asked]
    limits = ("max_completion_tokens", "max_tokens", "maxOutputTokens")
    assert [[body[name] for name in limits if name in body] for body in flat] == [[77]] * 3
    assert [body["temperature"] for body in flat] == [0.0] * 3


def test_a_temperature_of_null_is_left_to_the_server_and_a_seed_is_sent(server: ChatServer) -> None:
    captioned(server, batch([textured_jpeg(1)]), temperature=None, seed=7)
    assert "temperature" not in server.asked[0].body
    assert server.asked[0].body["seed"] == 7


def test_a_server_without_a_key_gets_none(server: ChatServer) -> None:
    server.key = ""
    assert not captioned(server, batch([textured_jpeg(1)]), key_env=None).failures


def test_a_prompt_names_columns_and_a_missing_value_is_an_empty_text(server: ChatServer) -> None:
    rows = batch([textured_jpeg(n) for n in range(2)], caption=["a {red} dog", None], width_px=[96, 97])
    found = captioned(server, rows, prompt="{{Old}}: {caption}, {width_px} wide. {caption}")
    assert not found.failures
    assert {one.prompt for one in server.asked} == {"{Old}: a {red} dog, 96 wide. a {red} dog", "{Old}: , 97 wide. "}
    operator = Caption(prompt="{caption} {width_px}").bound({"width_px": pa.int32(), "caption": pa.string()})
    assert [(column.name, str(column.type)) for column in operator.reads] == [
        ("image", "large_binary"), ("caption", "string"), ("width_px", "int32"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "prompt", ["{", "{caption!r}", "{caption:>9}", '{"a": 1}', "{0}", "{caption.x}", "a } b", "{}"]
)
def test_a_brace_that_begins_no_columns_name_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="braces that stand for themselves"):
        Caption(prompt=prompt)


def test_a_picture_is_sent_as_it_is_stored_unless_its_longest_side_is_too_long(server: ChatServer) -> None:
    small, large = textured_jpeg(1, 96, 80), in_format("PNG", 2)
    captioned(server, batch([small, large]), longest_side_px=96)
    assert {one.picture for one in server.asked} == {small, large}
    server.asked.clear()
    captioned(server, batch([small, textured_jpeg(3, 40, 48)]), longest_side_px=48)
    assert sorted(Image.open(io.BytesIO(one.picture)).size for one in server.asked) == [(40, 48), (48, 40)]
    assert textured_jpeg(3, 40, 48) in {one.picture for one in server.asked}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refusal_and_an_empty_answer_fail_their_row_each_with_its_class(server: ChatServer, protocol: str) -> None:
    replies = [refusal(protocol), answer(protocol, " \n"), answer(protocol, "", cut=True)]
    server.next.extend(Reply(200, one) for one in replies)
    found = captioned(server, batch([textured_jpeg(n) for n in range(4)]), protocol, concurrency=1)
    assert [found.failures[n].status for n in range(3)] == ["refused", "empty_answer", "empty_answer"]
    assert "max_tokens" in found.failures[2].error
    assert 3 not in found.failures
    assert len(server.begun) == 4  # none is asked again
    assert not PASSING & {"refused", "empty_answer"}


def test_an_answer_that_was_cut_is_kept(server: ChatServer) -> None:
    server.next.append(Reply(200, answer("openai", "a dog that", cut=True)))
    assert list(captioned(server, batch([textured_jpeg(1)])).values["vlm_caption"]) == ["a dog that"]


REFUSED = {"error": {"message": "Your input was flagged", "code": "content_policy_violation"}}
AZURE = {"error": {"message": "filtered", "code": "content_filter"}}
WRONG = {"error": {"message": "image too small", "type": "invalid_request_error"}}


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(400, REFUSED), "content_policy"),
        (Reply(400, AZURE), "content_policy"),
        (Reply(400, WRONG), "bad_request"),
        (Reply(413, b"<html>too large</html>"), "bad_request"),
        (Reply(422, {"detail": "no"}), "bad_request"),
    ],
)
def test_a_request_that_is_refused_fails_its_row_and_is_not_tried_again(
    server: ChatServer, reply: Reply, status: str
) -> None:
    server.next.append(reply)
    found = captioned(server, batch([textured_jpeg(n) for n in range(3)]), concurrency=1)
    assert {row: failure.status for row, failure in found.failures.items()} == {0: status}
    assert f"it answered {reply.status}: " in found.failures[0].error
    assert len(server.begun) == 3


PASS = [
    (Reply(429, {"error": {"message": "slow"}}, {"Retry-After": "1"}), "rate_limited"),
    (Reply(429, {"error": {"details": [{"@type": "google.rpc.RetryInfo", "retryDelay": "0.3s"}]}}), "rate_limited"),
    (Reply(500, b"oops"), "server_error"),
    (Reply(529, {"type": "error", "error": {"type": "overloaded_error"}}), "server_error"),
    (Reply(200, b"late", hang_s=1.0), "timeout"),
    (Reply(0), "unreachable"),
    (Reply(200, b'{"choices": [{"mess'), "broken_answer"),
    (Reply(200, {"choices": []}), "broken_answer"),
    (Reply(200, answer("openai", "x") | {"usage": {"prompt_tokens": "many"}}), "broken_answer"),
    (Reply(200, b"[" * 100_000), "broken_answer"),
]


@pytest.mark.parametrize(("reply", "status"), PASS)
def test_what_may_pass_is_tried_again(server: ChatServer, reply: Reply, status: str) -> None:
    server.next.append(reply)
    rows = batch([textured_jpeg(1)])
    found = captioned(server, rows, retries=0, timeout_s=0.5)
    assert {row: failure.status for row, failure in found.failures.items()} == {0: status}
    assert status in PASSING
    server.next.append(reply)
    assert not captioned(server, rows, retries=1, timeout_s=0.5).failures
    assert len(server.begun) == 3


def test_a_server_that_is_not_there_is_unreachable() -> None:
    operator = Caption(url="http://127.0.0.1:9/v1", model="m", retries=0)
    found = run(operator, batch([textured_jpeg(1)]))
    assert found.failures[0].status == "unreachable"


def test_who_asks_for_a_very_long_pause_is_not_waited_for(server: ChatServer) -> None:
    server.next.append(Reply(429, b"", {"Retry-After": "86400"}))
    found = captioned(server, batch([textured_jpeg(1)]), retries=9)
    assert found.failures[0].status == "rate_limited"


STOPS = [
    ("openai", Reply(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})),
    ("openai", Reply(403, {"error": {"message": "country"}})),
    ("openai", Reply(404, {"error": {"message": "no such model"}})),
    ("openai", Reply(301, b"", {"Location": "http://127.0.0.1:9/"})),
    ("openai", Reply(405, b"")),
    ("openai", Reply(429, {"error": {"message": "billing details", "code": "insufficient_quota"}})),
    ("anthropic", Reply(400, {"type": "error", "error": {"message": "Your credit balance is too low to access"}})),
    ("gemini", Reply(400, {"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}})),
]


@pytest.mark.parametrize(("protocol", "reply"), STOPS)
def test_what_would_fail_every_row_stops_the_run_with_a_sentence(
    server: ChatServer, protocol: str, reply: Reply
) -> None:
    server.next.append(reply)
    rows = batch([textured_jpeg(n) for n in range(20)])
    with pytest.raises(RunError, match=f"it answered {reply.status}: .*key_env") as caught:
        captioned(server, rows, protocol, concurrency=1)
    assert KEY not in str(caught.value)
    assert len(server.begun) <= 2


def test_a_wrong_key_and_an_unknown_model_stop_the_run(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="The model `other` does not exist"):
        captioned(server, batch([textured_jpeg(1)]), model="other")
    monkeypatch.setenv("TEST_KEY", "sk-wrong-key")
    for protocol in PROTOCOLS:
        with pytest.raises(RunError, match=r"Incorrect API key provided: \[key\]") as caught:
            captioned(server, batch([textured_jpeg(1)]), protocol)
        assert "sk-wrong-key" not in str(caught.value)


def test_a_plan_limit_of_gemini_is_no_empty_account(server: ChatServer) -> None:
    message = "You exceeded your current quota, please check your plan and billing details."
    server.next.append(Reply(429, {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}}))
    assert not captioned(server, batch([textured_jpeg(1)]), "gemini", retries=1).failures


def answered(server: ChatServer, pictures: list[bytes], **more: Any) -> Answers:
    """The outcomes as they come, row by row."""
    questions = (question_about(picture, "Describe it.", None) for picture in pictures)
    return Caption(**server.step(**more)).open().answered(enumerate(questions))


def test_many_failures_in_a_row_stop_the_run_and_their_rows_stay_open(server: ChatServer) -> None:
    pictures = [textured_jpeg(n) for n in range(100)]
    bad = {hashlib.sha256(one).hexdigest() for one in pictures[:3] + pictures[5:]}
    server.always = lambda asked: Reply(503, b"down") if asked.picture_sha256 in bad else None
    outcomes = answered(server, pictures, concurrency=1, retries=0)
    found: dict[int, Any] = {}
    with pytest.raises(RunError, match=r"50 requests in a row came to nothing.*503: down"):
        found.update(outcomes)
    assert len(server.begun) in (55, 56)
    assert {row: isinstance(one, Failure) for row, one in found.items()} == dict(enumerate([True] * 3 + [False] * 2))


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
def test_a_limit_holds_back_what_would_pass_it(server: ChatServer, limit: str) -> None:
    outcomes = answered(server, [textured_jpeg(n) for n in range(9)], **{limit: 1})
    next(outcomes)
    outcomes.close()
    assert len(server.begun) == 1


def test_a_pause_that_the_server_asks_for_holds_back_every_request(server: ChatServer) -> None:
    server.next.append(Reply(429, b"", {"Retry-After": "100"}))

    def questions() -> Iterator[tuple[int, Any]]:
        yield 0, question_about(textured_jpeg(0), "Describe it.", None)
        while not server.begun or server.at_once:
            time.sleep(0.01)
        time.sleep(0.5)
        yield 1, question_about(textured_jpeg(1), "Describe it.", None)
        time.sleep(0.5)
        yield 2, Failure("none", "no picture")

    outcomes = Caption(**server.step()).open().answered(questions())
    assert next(outcomes)[0] == 2
    outcomes.close()
    assert len(server.begun) == 1


def test_failures_between_answers_are_the_rows_own(server: ChatServer) -> None:
    pictures = [textured_jpeg(n) for n in range(60)]
    good = {hashlib.sha256(one).hexdigest() for one in pictures[::10]}
    server.always = lambda asked: None if asked.picture_sha256 in good else Reply(400, WRONG)
    operator = Caption(**server.step(concurrency=4))
    outputs = list(operator.stream(iter([(np.arange(60), batch(pictures))]), operator.open()))
    rows = [row for rows, output in outputs for row, one in zip(rows, output.values["vlm_caption"], strict=True) if one]
    assert sorted(rows) == list(range(0, 60, 10))
    assert sorted(row for rows, _ in outputs for row in rows) == list(range(60))


def test_requests_in_flight_are_many_and_bounded(server: ChatServer) -> None:
    server.delay_s = 0.05
    captioned(server, batch([textured_jpeg(n) for n in range(24)]), concurrency=6)
    assert server.most_at_once == 6


def test_no_more_questions_are_taken_than_may_be_in_flight(server: ChatServer) -> None:
    taken = 0

    def questions() -> Iterator[tuple[int, Any]]:
        nonlocal taken
        for taken in range(1, 41):
            yield taken, question_about(textured_jpeg(taken), "Describe it.", None)

    outcomes = Caption(**server.step(concurrency=5)).open().answered(questions())
    assert all(taken < number + 5 for number, _ in enumerate(outcomes, 1))
    assert taken == 40


def test_equal_questions_are_asked_once_and_every_row_has_the_answer(server: ChatServer) -> None:
    server.delay_s = 0.02
    pictures = [textured_jpeg(n % 3) for n in range(12)]
    found = captioned(server, batch(pictures))
    assert len(server.begun) == 3
    assert list(found.values["vlm_caption"]) == [f"picture {hashlib.sha256(one).hexdigest()[:8]}" for one in pictures]


def test_what_was_answered_is_never_asked_again_until_the_question_changes(server: ChatServer, tmp_path: Any) -> None:
    store = Store.open(tmp_path / "store")
    rows = batch([textured_jpeg(n) for n in range(4)])
    first = run(Caption(**server.step()), rows, store)
    assert len(server.begun) == 4
    again = run(Caption(**server.step(url=f"{server.root}/v1/", concurrency=2)), rows, store)
    assert again == first
    assert len(server.begun) == 4
    for number, change in enumerate(
        [{"prompt": "Else?"}, {"temperature": 0.5}, {"max_tokens": 9}, {"seed": 1}, {"protocol": "gemini"}]
    ):
        run(Caption(**server.step() | change | {"url": server.url(change.get("protocol", "openai"))}), rows, store)
        assert len(server.begun) == 8 + 4 * number


def test_refusals_are_paid_for_too_and_kept(server: ChatServer, tmp_path: Any) -> None:
    store = Store.open(tmp_path / "store")
    server.next.append(Reply(200, refusal("openai")))
    rows = batch([textured_jpeg(1)])
    for _ in range(2):
        assert run(Caption(**server.step()), rows, store).failures[0].status == "refused"
    assert len(server.begun) == 1


def test_failures_are_not_kept(server: ChatServer, tmp_path: Any) -> None:
    store = Store.open(tmp_path / "store")
    server.next.append(Reply(400, WRONG))
    rows = batch([textured_jpeg(1)])
    assert run(Caption(**server.step()), rows, store).failures[0].status == "bad_request"
    assert not run(Caption(**server.step()), rows, store).failures


def test_half_a_character_becomes_a_question_mark(server: ChatServer) -> None:
    text = json.dumps(answer("openai", "a dog X")).replace("X", "\\ud83d")
    server.next.append(Reply(200, text.encode()))
    assert list(captioned(server, batch([textured_jpeg(1)])).values["vlm_caption"]) == ["a dog ?"]


def test_a_picture_that_is_none_fails_alone_and_is_not_sent(server: ChatServer) -> None:
    found = captioned(server, batch([b"no picture", textured_jpeg(1), in_format("PNG", 2)[:20]]))
    assert {row: failure.status for row, failure in found.failures.items()} == {0: "not_an_image", 2: "decode_error"}
    assert len(server.begun) == 1


def test_the_key_stands_in_no_operator_and_no_error(server: ChatServer) -> None:
    operator = Caption(**server.step())
    assert KEY not in repr(operator) + operator.model_dump_json()
    assert KEY.encode() not in pickle.dumps(operator)
    server.next.append(Reply(400, {"error": {"message": f"you sent {KEY} with it"}}))
    found = run(operator, batch([textured_jpeg(1)]))
    assert found.failures[0] == Failure(
        "bad_request", f"{server.root}/v1/chat/completions: it answered 400: you sent [key] with it"
    )


@pytest.mark.parametrize("written", [KEY, "MY_KEY", "AIzaSyD-abc"])
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown(written: str) -> None:
    with pytest.raises(InputError, match="never the key itself") as caught:
        Caption(model="m", key_env=written).check()
    assert (written in str(caught.value)) == (written == "MY_KEY")


@pytest.mark.parametrize("held", [" \n", "sk-ä", "sk-1\nsk-2"])
def test_a_variable_that_holds_no_key_is_refused(monkeypatch: pytest.MonkeyPatch, held: str) -> None:
    monkeypatch.setenv("TEST_KEY", held)
    with pytest.raises(InputError, match="TEST_KEY") as caught:
        Caption(model="m", key_env="TEST_KEY").check()
    assert "sk-" not in str(caught.value)


def test_a_worker_without_the_key_says_so(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Caption(**server.step())
    operator.check()
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(RunError, match=r"TEST_KEY is no environment variable.*every worker needs it"):
        operator.open()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "name exactly one of model"),
        ({"model": "m", "weights": "w"}, "name exactly one of model"),
        ({"model": "m", "url": "localhost:8000"}, "no http"),
        ({"model": "m", "url": "http://h:99999/"}, "no http"),
        ({"model": "m", "url": "https://me:secret@h/v1"}, "user name, a query"),
        ({"model": "m", "url": "https://h/v1?key=secret"}, "user name, a query"),
        ({"model": "m", "protocol": "anthropic", "seed": 1}, "seed"),
        ({"weights": "no/such/folder"}, "config.json"),
        ({"weights": "w", "url": "http://h/v1"}, "url: belongs to a server"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Caption(**parameters).check()
    assert "secret" not in str(caught.value)


def test_without_a_url_the_protocols_own_server_is_meant() -> None:
    urls = {protocol: Caption(protocol=protocol, model=MODEL)._url for protocol in PROTOCOLS}
    assert urls == {
        "openai": "https://api.openai.com/v1",
        "anthropic": "https://api.anthropic.com",
        "gemini": "https://generativelanguage.googleapis.com/v1beta",
    }


def test_how_a_server_is_reached_is_no_part_of_a_fingerprint() -> None:
    settings = {"url", "weights", "key_env", "requests_per_minute", "tokens_per_minute", "concurrency", "timeout_s"}
    settings |= {"retries", "device"}
    assert set(Caption.model_fields) - set(Caption.result_parameters()) == settings
