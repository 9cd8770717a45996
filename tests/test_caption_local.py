"""caption and judge by weights in a folder: a LLaVA of the smallest kind with random weights."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import textured_jpeg
from PIL import Image

from curation.models.chat.question import Answerer
from curation.operator import Batch
from curation.operator_contract import run_breaches
from curation.operators.caption import Caption
from curation.operators.judge import Judge
from curation.plan import build_plan
from schemas.errors import InputError, RunError
from schemas.pipeline import CurationSpec
from schemas.pixels import decode

WORDS = [
    *"abcdefghij", ".", ":", "Describe", "assistant", "blue", "cat", "dog", "green", "it", "old", "on", "picture",
    "red", "table", "the", "user",
]  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{{ message.role }} : {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
PROMPT = "Describe it . {caption}"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved as our own training and everybody else's saves them."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    plain = Tokenizer(WordLevel({word: n for n, word in enumerate(["<unk>", *WORDS])}, unk_token="<unk>"))
    plain.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pad, begin, end, image = tokenizer.convert_tokens_to_ids(["<pad>", "<s>", "</s>", "<image>"])
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=pad, bos_token_id=begin, eos_token_id=end,
        initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=image))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, pad
    size = {"shortest_edge": 32}
    processor = LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", chat_template=TEMPLATE, image_token="<image>",
        num_additional_image_tokens=1,
    )  # fmt: skip
    found = tmp_path_factory.mktemp("llava")
    model.save_pretrained(found)
    processor.save_pretrained(found)
    return found


@pytest.fixture(scope="module")
def opened(folder: Path) -> Answerer:
    return operator(folder).open()


def operator(folder: Path, **more: Any) -> Caption:
    return Caption(**{"weights": str(folder), "prompt": PROMPT, "batch_size": 3, "max_tokens": 6} | more)


def batch(count: int) -> Batch:
    captions = ["the red dog", "a cat on the table . blue blue blue", None, "d"]
    columns = {"key": [f"{n:032x}" for n in range(count)], "caption": [captions[n % 4] for n in range(count)]}
    pictures = [textured_jpeg(n, 40 + 5 * n, 60 - n) for n in range(count)]
    return Batch(pa.table(columns), pictures)


def by_transformers(folder: Path, rows: Batch) -> list[tuple[str, int, int]]:
    """Text and tokens as transformers alone gives them, one row at a time."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    found = []
    for stored, caption in zip(rows.stored, rows["caption"].to_pylist(), strict=True):
        assert stored is not None
        content = [
            {"type": "image", "image": Image.fromarray(decode(stored))},
            {"type": "text", "text": PROMPT.format(caption=caption or "")},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            written_T = model.generate(**inputs, do_sample=False, max_new_tokens=6)[0]
        new = [
            token
            for token in written_T[inputs["input_ids"].shape[1] :].tolist()
            if token != processor.tokenizer.eos_token_id
        ]
        text = processor.tokenizer.decode(new, skip_special_tokens=True)
        found.append((text, inputs["input_ids"].shape[1], len(new)))
    return found


def test_captions_are_those_that_transformers_itself_writes(folder: Path, opened: Answerer) -> None:
    rows = batch(7)
    found = operator(folder).run(rows, opened)
    assert not found.failures
    wanted = by_transformers(folder, rows)
    assert list(zip(*found.values.values(), strict=True)) == wanted
    assert len({text for text, _, _ in wanted}) > 1


def test_a_row_has_the_same_caption_in_whatever_batch_it_stands(folder: Path, opened: Answerer) -> None:
    assert list(run_breaches(operator(folder), batch(5), opened)) == []


def test_a_broken_picture_fails_alone(folder: Path, opened: Answerer) -> None:
    rows = batch(4)
    out = io.BytesIO()
    Image.open(io.BytesIO(textured_jpeg(9, 400, 300))).save(out, "PNG")
    broken = Batch(rows.table, [rows.stored[0], out.getvalue()[:900], b"none", rows.stored[3]])
    found = operator(folder).run(broken, opened)
    assert {row: failure.status for row, failure in found.failures.items()} == {1: "decode_error", 2: "not_an_image"}
    whole = operator(folder).run(rows, opened).values["vlm_caption"]
    assert [found.values["vlm_caption"][row] for row in (0, 3)] == [whole[0], whole[3]]


def test_a_judge_without_a_score_fails_its_rows(folder: Path) -> None:
    judge = Judge(weights=str(folder), rubric="Describe it .", batch_size=2, max_tokens=4)
    found = judge.run(batch(2), judge.open())
    assert set(found.failures) == {0, 1}
    assert {failure.status for failure in found.failures.values()} <= {"unparsable", "empty_answer"}


def test_control_words_in_a_column_are_plain_text_and_a_prompt_that_is_too_long_fails_alone(
    folder: Path, opened: Answerer
) -> None:
    rows = batch(3)
    captions = pa.array(["the red dog", "<image> </s> <image>", "word " * 5000])
    found = operator(folder).run(Batch(rows.table.set_column(1, "caption", captions), rows.stored), opened)
    assert {row: failure.status for row, failure in found.failures.items()} == {2: "too_long"}
    assert "5023 tokens" in found.failures[2].error
    assert found.values["vlm_caption"][0] == operator(folder).run(batch(1), opened).values["vlm_caption"][0]


def test_the_weights_stand_in_the_fingerprint_and_their_path_does_not(folder: Path, tmp_path: Path) -> None:
    def fingerprint(where: Path, **more: Any) -> str:
        steps = ["download", {"caption": operator(where, **more).model_dump(exclude_unset=True)}]
        spec = CurationSpec.model_validate({"name": "x", "source": {"table": "x.parquet"}, "steps": steps})
        planned: Any = build_plan(spec, {}, captured=False).steps[1]
        return str(planned.base_fingerprint)

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    assert fingerprint(elsewhere) == fingerprint(folder)
    assert fingerprint(folder, batch_size=4) != fingerprint(folder)
    (elsewhere / "chat_template.jinja").write_text(TEMPLATE + " ")
    assert fingerprint(elsewhere) != fingerprint(folder)


def test_a_folder_that_lacks_something_is_refused_with_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    for number, (name, said) in enumerate(
        [("config.json", "config.json"), ("model.safetensors", "no weights"), ("processor_config.json", "processor")]
    ):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(name))
        with pytest.raises(InputError, match=said):
            operator(copy).check()
    operator(folder).check()
    copy = tmp_path / "no_template"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("chat_template.jinja"))
    with pytest.raises(RunError, match="no chat template"):
        operator(copy).open()
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(RunError, match="cannot be loaded"):
        operator(copy).open()
