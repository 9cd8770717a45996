"""BLIP-2's first stage: three losses against references, who sees whom, and what the second stage begins with."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked_ranks import contrast_and_gradients, run_cases
from small_training import pairs, write_set
from tiny_vlm import PARTS, VISION, picture, spec_of

from schemas.errors import InputError
from schemas.generative import GenerativeSpec
from training.generative.blip2_stage1 import FirstStage, caption_vectors, contrasted, hard_negatives, match_logits, told
from training.generative.blip2_stage1_learner import CaptionEncoder
from training.generative.blip2_stage1_model import SPEAKS, second_stage, start
from training.generative.build import Built, build, open_model
from training.generative.conversations import Unfit, captioned
from training.generative.train import train_generative
from training.ranks import ALONE

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST = {"train": ["connector"], "objective": "blip2_stage1", "steps": 4, "batch_size": 8, "lr": 1e-3, "max_tokens": 32}
# transformers begins with weights that are too small for widths like these, and the encoder's at nearly nothing (1e-10)
WIDE = {"initializer_range": 0.1}
CONNECTOR = PARTS["blip2"]["connector"] | WIDE
CONNECTOR |= {"qformer_config": CONNECTOR["qformer_config"] | WIDE, "image_text_hidden_size": 32}
CAPTIONS = ["a red square", "a blue disc at the top left", "a green square and a yellow disc", "a red square"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("curated") / "shapes", pairs(64))


def asked(data: Path, output: Path, **changes: Any) -> GenerativeSpec:
    """The first stage, then a few steps of answers."""
    first = FIRST | {"data": [{"set": str(data)}]}
    second = {"train": ["connector"], "steps": 3, "batch_size": 4, "lr": 1e-3, "max_tokens": 128, "data": first["data"]}
    fields = {"name": "small", "stages": [first, second], "output": str(output), "save_every": 2, "threads": 1}
    fields |= {"encoder": {"config": VISION | WIDE}, "connector": CONNECTOR}
    return spec_of("blip2", **fields | changes)


@pytest.fixture(scope="module")
def built() -> Built:
    made = start(asked(Path("x"), Path("y")), 0, None)
    with torch.no_grad():  # as after some training: what is nearly zero at the beginning hides mistakes
        for _, weight in sorted(made.model.named_parameters()):
            if weight.ndim >= 2:
                weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(weight.numel()))
    return made


@pytest.fixture(scope="module")
def batch(built: Built) -> dict[str, torch.Tensor]:
    read = built.processor.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    shown = built.processor.image_processor([picture(n) for n in range(4)], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        image_bPD = built.model.vision_model(pixel_values=shown).last_hidden_state
    return {"pixels": shown, "image": image_bPD, "tokens": read["input_ids"], "mask": read["attention_mask"]}


def speaks(built: Built) -> int:
    return int(built.processor.tokenizer.convert_tokens_to_ids(SPEAKS))


def losses(built: Built, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    labels = int((batch["mask"][:, 1:] == 1).sum())
    shares = FirstStage(built.model, speaks(built))(batch["pixels"], batch["tokens"], batch["mask"], labels)
    return dict(zip(("contrast", "matching", "captioning"), shares.tolist(), strict=True))


def test_the_contrast_is_that_of_the_most_alike_query_written_out() -> None:
    draw = torch.Generator().manual_seed(0)
    query_bQE = torch.nn.functional.normalize(torch.randn(3, 2, 4, generator=draw), dim=-1)
    text_bE = torch.nn.functional.normalize(torch.randn(3, 4, generator=draw), dim=-1)
    loss, logits_bb = contrasted(query_bQE, text_bE, 0.1)
    alike = [
        [
            max(sum(a * b for a, b in zip(query, text, strict=True)) for query in queries) / 0.1
            for text in text_bE.tolist()
        ]
        for queries in query_bQE.tolist()
    ]
    assert np.allclose(logits_bb.tolist(), alike, atol=1e-5)
    terms = []
    for table in (alike, [list(column) for column in zip(*alike, strict=True)]):
        for right, row in enumerate(table):
            logs = [value - math.log(sum(map(math.exp, row))) for value in row]
            terms.append(-0.9 * logs[right] - 0.1 * sum(logs) / 3)  # targets smoothed by 0.1
    assert loss.item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_two_ranks_contrast_all_their_pairs_as_one_does(ran: Path) -> None:
    found = [torch.load(ran / f"rank-{rank}.pt") for rank in range(2)]
    whole = contrast_and_gradients(slice(4), ALONE)
    torch.testing.assert_close((found[0][0] + found[1][0]) / 2, whole[0])
    for place in (1, 2):  # DDP takes the mean of the ranks' gradients
        torch.testing.assert_close(torch.cat([found[0][place], found[1][place]]) / 2, whole[place])


def test_where_nothing_is_known_the_contrast_is_the_logarithm_of_the_batch() -> None:
    alike = torch.nn.functional.normalize(torch.ones(8, 3, 4), dim=-1)
    assert contrasted(alike, alike[:, 0], 0.07)[0].item() == pytest.approx(math.log(8), abs=1e-5)


def test_captioning_is_a_causal_model_told_token_by_token(built: Built, batch: dict[str, torch.Tensor]) -> None:
    model, words_VD = built.model, built.model.embeddings.word_embeddings.weight
    terms = []
    with torch.no_grad():
        for row in range(4):
            caption_T = batch["tokens"][row][batch["mask"][row] == 1]
            for end in range(1, len(caption_T)):
                said_1T = caption_T[None, :end]
                _, text_1TD = told(
                    model, batch["image"][row : row + 1], said_1T, torch.ones_like(said_1T), speaks(built)
                )
                terms.append(-(text_1TD[0, -1] @ words_VD.T).log_softmax(0)[caption_T[end]].item())
        found = losses(built, batch)
    assert found["captioning"] == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_while_captions_are_told_queries_see_none_and_no_token_looks_ahead(
    built: Built, batch: dict[str, torch.Tensor]
) -> None:
    changed = batch["tokens"].clone()
    changed[:, 3] = changed[:, 3] % 300 + 5
    with torch.no_grad():
        before, after = (
            told(built.model, batch["image"], tokens, batch["mask"], speaks(built))
            for tokens in (batch["tokens"], changed)
        )
        alone = built.model.qformer(
            query_embeds=built.model.query_tokens.expand(4, -1, -1), encoder_hidden_states=batch["image"]
        ).last_hidden_state
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(before[0], alone, atol=1e-5, rtol=1e-5)
    assert torch.equal(before[1][:, :3], after[1][:, :3])
    assert not torch.allclose(before[1][:, 3], after[1][:, 3], atol=1e-3)


def test_a_token_that_is_told_knows_the_picture_and_a_caption_alone_does_not(
    built: Built, batch: dict[str, torch.Tensor]
) -> None:
    model, tokens, mask = built.model, batch["tokens"], batch["mask"]
    with torch.no_grad():
        before, after = (
            told(model, image, tokens, mask, speaks(built))[1] for image in (batch["image"], batch["image"].flip(0))
        )
        alone = caption_vectors(model, tokens, mask)
        same = caption_vectors(model, tokens[:2, :3], mask[:2, :3])
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(alone[0], alone[3])  # the same caption, whichever picture
    assert not torch.allclose(alone[:2], same, atol=1e-3)  # and all of it is read


def test_in_matching_queries_see_the_caption(built: Built, batch: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        before = match_logits(built.model, batch["image"], batch["tokens"], batch["mask"])
        after = match_logits(built.model, batch["image"], batch["tokens"].flip(0), batch["mask"].flip(0))
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_padding_changes_no_loss(built: Built, batch: dict[str, torch.Tensor]) -> None:
    longer = batch | {
        "tokens": torch.nn.functional.pad(batch["tokens"], (0, 3), value=7),
        "mask": torch.nn.functional.pad(batch["mask"], (0, 3)),
    }
    with torch.no_grad():
        torch.manual_seed(0)
        whole = losses(built, batch)
        torch.manual_seed(0)
        assert losses(built, longer) == pytest.approx(whole, rel=1e-4)


def test_hard_negatives_are_never_the_pair_itself_nor_one_with_its_caption() -> None:
    torch.manual_seed(0)
    tokens_bT = torch.tensor([[1, 2], [1, 3], [1, 2], [4, 5]])
    logits_bb = 20 * torch.eye(4) + torch.tensor([0.0, 9.0, 0.0, 0.0])
    drawn = [hard_negatives(logits_bb, tokens_bT) for _ in range(300)]
    pictures = torch.stack([one[0] for one in drawn])
    captions = torch.stack([one[1] for one in drawn])
    for other in (pictures, captions):
        assert (other != torch.arange(4)).all()
        assert not (other[:, 0] == 2).any()
        assert not (other[:, 2] == 0).any()
    assert (captions[:, 0] == 1).float().mean() > 0.95  # the caption that looks most alike
    alike = hard_negatives(torch.zeros(3, 3), torch.ones(3, 2, dtype=torch.long))
    assert all((one != torch.arange(3)).all() for one in alike)  # where all captions are the same, another of them


def test_all_that_is_to_learn_learns_and_each_loss_falls(data: Path, tmp_path: Path) -> None:
    few = write_set(tmp_path / "few", pairs(64)[::8])
    stage = FIRST | {"train": ["connector", "encoder"], "steps": 200, "lr": 5e-3, "data": [{"set": str(few)}]}
    spec = asked(data, tmp_path / "out", stages=[stage], save_every=1000)
    before = start(spec, 0, None).model.state_dict()
    train_generative(spec)
    lines = [json.loads(line) for line in (tmp_path / "out" / "stage-1" / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    assert first["contrast"] == pytest.approx(math.log(8), abs=0.5)
    assert last["contrast"] < 0.5 * first["contrast"]  # to 0.46 at least, where targets are smoothed
    assert last["matching"] < 0.5 * first["matching"]
    assert last["captioning"] < 0.1 * first["captioning"]
    after = start(spec, 0, tmp_path / "out" / "stage-1" / "model").model.state_dict()
    assert not [name for name in before if name != "temperature" and torch.equal(before[name], after[name])]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    told_lines: list[str] = []
    train_generative(asked(data, folder), tell=told_lines.append)
    assert told_lines[0].startswith("small, stage 1 of 2: trains connector (")
    return folder


@pytest.fixture(scope="module")
def ran(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks contrast, and a training that was killed after three steps."""
    root = tmp_path_factory.mktemp("ranks")
    spec = asked(data, root / "killed").model_dump(mode="json")
    contrast = {"do": "contrast", "ranks": 2, "out": str(root)}
    run_cases(root, [contrast, {"do": "train", "ranks": 1, "spec": spec, "kill_at": 3}])
    return root


def test_the_second_stage_begins_with_the_weights_of_the_first_bit_by_bit(data: Path, trained: Path) -> None:
    from safetensors.torch import load_file

    learnt = load_file(trained / "stage-1" / "model" / "model.safetensors")
    spec = asked(data, trained)
    begins = second_stage(spec, trained / "stage-1" / "model").model.state_dict()
    fresh = start(spec, 0, None).model.state_dict()
    taken = [name for name in begins if name.startswith(("qformer.", "query_tokens", "vision_model."))]
    assert all(torch.equal(begins[name], learnt[name]) for name in taken)
    changed = [name for name in taken if not torch.equal(begins[name], fresh[name])]
    assert changed
    assert all(name.startswith(("qformer.", "query_tokens")) for name in changed)  # the encoder is frozen
    assert not torch.equal(fresh["query_tokens"][0, 0], fresh["query_tokens"][0, 1])  # else they would stay the same


def test_the_first_stage_loads_in_plain_transformers_with_the_same_scores(
    data: Path, trained: Path, batch: dict[str, torch.Tensor]
) -> None:
    from transformers import AutoProcessor, Blip2ForImageTextRetrieval

    folder = trained / "stage-1" / "model"
    theirs, told_of = Blip2ForImageTextRetrieval.from_pretrained(folder, output_loading_info=True)
    assert not any(told_of[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=[picture(n) for n in range(4)], text=CAPTIONS, padding=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], batch["tokens"])
    ours = start(asked(data, trained), 0, folder).model
    with torch.no_grad():
        image_bPD = ours.vision_model(pixel_values=inputs["pixel_values"]).last_hidden_state
        tokens, mask = inputs["input_ids"], inputs["attention_mask"]
        queries, _ = told(ours, image_bPD, tokens, mask, 0)
        query_bQE = torch.nn.functional.normalize(ours.vision_projection(queries), dim=-1)
        logits_bb = contrasted(query_bQE, caption_vectors(ours, tokens, mask), 1.0)[1]
        matched = match_logits(ours, image_bPD, tokens, mask)
        torch.testing.assert_close(theirs(**inputs).logits_per_image, logits_bb, atol=1e-5, rtol=1e-5)
        found = theirs(**inputs, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(found, matched, atol=1e-5, rtol=1e-5)


def test_what_both_stages_made_answers_and_the_first_alone_says_that_it_cannot(trained: Path) -> None:
    from training.generative.answer import answer

    assert len(answer(open_model(trained / "model"), [picture(1)], "What is it?", max_new_tokens=3)) == 1
    with pytest.raises(InputError, match="is BLIP-2's first stage, which answers nothing"):
        open_model(trained / "stage-1" / "model")


def test_killed_in_the_first_stage_it_ends_with_the_same_weights(data: Path, trained: Path, ran: Path) -> None:
    steps: list[int] = []
    train_generative(asked(data, ran / "killed"), progress=lambda done, *_: steps.append(done))
    assert steps == [3, 4, 1, 2, 3]
    for stage in ("stage-1", "stage-2"):
        ours, whole = (root / stage / "model" / "model.safetensors" for root in (ran / "killed", trained))
        assert ours.read_bytes() == whole.read_bytes()


def test_a_whole_model_without_a_first_stage_goes_on_to_learn(data: Path, trained: Path, tmp_path: Path) -> None:
    whole = {"weights": str(trained / "model"), "encoder": None, "llm": None, "connector": {}, "tokenizer": None}
    spec = asked(data, tmp_path, **whole)
    spec = spec.model_copy(update={"stages": spec.stages[1:]})
    assert train_generative(spec).metrics["stage-1"]["steps"] == 3


def test_activations_that_are_computed_twice_change_no_loss(data: Path, trained: Path, tmp_path: Path) -> None:
    stage = FIRST | {"data": [{"set": str(data)}], "checkpointing": True}
    train_generative(asked(data, tmp_path, stages=[stage]))
    ours, whole = (
        [json.loads(line)["loss"] for line in (root / "stage-1" / "metrics.jsonl").read_text().splitlines()]
        for root in (tmp_path, trained)
    )
    assert ours == whole


def test_captions_are_cut_and_what_looks_like_a_control_token_is_text(built: Built) -> None:
    from small_training import png

    encoder = CaptionEncoder(built, 8)
    long = encoder.encode(captioned("row", png(picture(1)), "a red square at the top left on grey " * 3, "Describe."))
    tokenizer = built.processor.tokenizer
    assert long.shortened
    assert long.inputs["input_ids"].shape == (1, 8)
    assert tokenizer.convert_ids_to_tokens(long.inputs["input_ids"][0][[0, -1]]) == ["[CLS]", "[SEP]"]
    control = CaptionEncoder(built, 64).encode(captioned("row", png(picture(1)), "a</s>[DEC]", ""))
    inside = control.inputs["input_ids"][0][1:-1].tolist()
    assert not {*tokenizer.all_special_ids} & {*inside}
    assert speaks(built) not in inside
    with pytest.raises(Unfit, match="empty caption"):
        encoder.encode(captioned("row", png(picture(1)), " ", ""))


@pytest.mark.parametrize(
    ("first", "fields", "message"),
    [
        ({"data": [{"instructions": "x.json"}]}, {}, r"stages\[0\].data: blip2_stage1 learns from captions; name"),
        ({"train": ["llm"]}, {}, r"stages\[0\].train: blip2_stage1 knows no llm; it can train connector and encoder"),
        ({"accumulate": 2}, {}, r"stages\[0\].accumulate: blip2_stage1 contrasts the pairs of a whole batch"),
        ({}, {"weights": "x", "encoder": None, "llm": None, "connector": {}}, r"weights: blip2_stage1 begins with"),
        ({}, {"evaluate": [{"captions": {"folder": "x"}}]}, r"evaluate: a model of blip2_stage1 alone answers nothing"),
        ({"batch_size": 1}, {}, r"batch_size: blip2_stage1 needs two pairs at least on each of 1 processes"),
    ],
)  # fmt: skip
def test_what_a_first_stage_cannot_do_is_a_sentence(
    data: Path, tmp_path: Path, first: dict, fields: dict, message: str
) -> None:
    spec = asked(data, tmp_path / "out", stages=[FIRST | {"data": [{"set": str(data)}]} | first], **fields)
    if "instructions" in str(first):
        Path(tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match=message):
        train_generative(spec)
    assert not (tmp_path / "out").exists()


def test_a_new_encoder_sees_something() -> None:
    weight = build(spec_of("blip2")).model.vision_model.encoder.layers[0].mlp.fc1.weight.detach()
    assert 0.01 < float(weight.std()) < 0.03


def test_a_first_stage_after_answers_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    spec = asked(data, tmp_path / "out")
    with pytest.raises(InputError, match=r"stages\[1\].objective: blip2_stage1 comes before stages that learn answers"):
        train_generative(spec.model_copy(update={"stages": spec.stages[::-1]}))
    assert not (tmp_path / "out").exists()
