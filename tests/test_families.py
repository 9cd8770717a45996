"""Every family in its tiny form: it builds, learns a batch by heart, generates, is saved and loads in transformers."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlm import PARTS, built, conversation, picture

from schemas.generative import Lora
from training.generative.adapters import add_adapters, merge_adapters, merged
from training.generative.answer import answer, generate, prompts
from training.generative.build import Built, open_model
from training.generative.families import FAMILIES as TABLE
from training.generative.hidden_states import hidden_states
from training.generative.image_tokens import with_image_labels
from training.generative.parts import freeze
from training.generative.save import save_model

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = tuple(PARTS)
FAMILIES_OF_VIDEO = {family.name for family in TABLE.values() if family.video}
QUESTION, ANSWERS = "What is in the picture?", ("a red square", "a blue disc", "yes")
STEPS, RATE = 30, 1e-2


def shown(seed: int) -> Image.Image:
    """A picture of another shape each, so that families of tiles make several of it."""
    return picture(seed, 90 - 5 * seed, 40)


def batch_of(one: Built) -> tuple[dict, torch.Tensor]:
    """Three pictures with their answers, as the model's inputs and labels."""
    pictures = [shown(i) for i in range(len(ANSWERS))]
    if one.family.answers_apart(one.model.config):
        inputs = prompts(one, [conversation(QUESTION, None, [one_picture]) for one_picture in pictures])
        said = one.processor.tokenizer([f"{text}</s>" for text in ANSWERS], padding=True, return_tensors="pt")
        return dict(inputs), said["input_ids"].masked_fill(said["attention_mask"] == 0, -100)
    inputs = one.processor.apply_chat_template(
        [conversation(QUESTION, text, [one_picture]) for text, one_picture in zip(ANSWERS, pictures, strict=True)],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, **one.family.call},
    )
    learnt_BT = torch.as_tensor(inputs.pop("assistant_masks")).bool()
    return dict(inputs), inputs["input_ids"].masked_fill(~learnt_BT, -100)


def loss_of(one: Built, inputs: dict, labels_BT: torch.Tensor) -> torch.Tensor:
    if one.family.answers_apart(one.model.config):
        return one.model(**inputs, labels=labels_BT).loss
    logits_BTV = one.model(**inputs, use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten())


def overfit(one: Built, inputs: dict, labels_BT: torch.Tensor) -> list[float]:
    learns = [p for p in one.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=RATE, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(one, inputs, labels_BT)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_learns_generates_is_saved_and_loads_in_transformers(name, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    one = built(name)
    freeze(one.model, one.family, [role for role in ("encoder", "connector", "llm") if learns(one, role)])
    inputs, labels_BT = batch_of(one)
    said = [one.processor.tokenizer.decode(row[row >= 0]) for row in labels_BT]
    ends = one.processor.tokenizer.decode(labels_BT[0][labels_BT[0] >= 0][-1])
    assert [text.strip() for text in said] == [f"{text}{ends}" for text in ANSWERS]  # the mask is the answer's
    losses = overfit(one, inputs, labels_BT)
    assert losses[-1] < 0.3 * losses[0]

    one.model.eval()
    mirrored = inputs | {"pixel_values": inputs["pixel_values"].flip(-1)}
    with torch.no_grad():  # it looks at what it is shown
        assert loss_of(one, mirrored, labels_BT) != loss_of(one, inputs, labels_BT)
    asked = prompts(one, [conversation(QUESTION, None, [shown(i)]) for i in range(len(ANSWERS))])
    cached_BT = generate(one, asked, max_new_tokens=8)
    assert torch.equal(cached_BT, generate(one, asked, max_new_tokens=8, use_cache=False))

    save_model(one, tmp_path / "model")
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    assert type(theirs) is type(one.model)
    with torch.no_grad():
        arguments = {"labels": labels_BT} if one.family.answers_apart(one.model.config) else {}
        torch.testing.assert_close(
            theirs(**inputs, **arguments).logits, one.model(**inputs, **arguments).logits, atol=1e-5, rtol=1e-5
        )
    assert type(AutoProcessor.from_pretrained(tmp_path / "model")).__name__ == type(one.processor).__name__
    again = open_model(tmp_path / "model")
    pictures = [shown(i) for i in range(len(ANSWERS))]
    assert answer(again, pictures, QUESTION, max_new_tokens=8) == answer(one, pictures, QUESTION, max_new_tokens=8)


def learns(one: Built, role: str) -> bool:
    return role in one.family.roles and role not in one.family.frozen


@pytest.mark.parametrize("name", FAMILIES)
def test_merged_adapters_give_the_logits_of_the_adapters(name, tmp_path):
    one = built(name)
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    inputs, labels_BT = batch_of(one)
    add_adapters(one.model, one.family, Lora(rank=4, alpha=8), seed=0)
    freeze(one.model, one.family, ["lora"])
    with torch.no_grad():
        for key, weight in one.model.named_parameters():
            if ".lora_B." in key:  # which begins at zero
                weight.normal_(0, 0.05)
    arguments = {"labels": labels_BT} if one.family.answers_apart(one.model.config) else {}
    with torch.no_grad():
        adapted = one.model(**inputs, **arguments).logits
        without = merged(one.model)
        torch.testing.assert_close(without(**inputs, **arguments).logits, adapted, atol=1e-4, rtol=1e-4)
    if name in ("llava", "blip2"):
        save_model(one, tmp_path / "model")  # without a word of adapters
        assert not list((tmp_path / "model").glob("adapter*"))
        with torch.no_grad():
            found = open_model(tmp_path / "model").model(**inputs, **arguments).logits
        torch.testing.assert_close(found, adapted, atol=1e-4, rtol=1e-4)
    merge_adapters(one.model)
    assert set(one.model.state_dict()) == set(before)
    changed = {key for key, tensor in one.model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed
    assert {one.family.role_of(key, one.model.config) for key in changed} == {"llm"}


@pytest.mark.parametrize("name", [name for name in PARTS if name in FAMILIES_OF_VIDEO])
def test_a_video_is_seen_frame_by_frame(name):
    one = built(name)
    frames_FHWC = np.stack([np.asarray(picture(i)) for i in range(6)])
    said = conversation(QUESTION, ANSWERS[0], [])
    said[0]["content"].insert(0, {"type": "video", "video": frames_FHWC})
    inputs = one.processor.apply_chat_template(
        [said],
        chat_template=one.processor.chat_template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        return_tensors="pt",
        processor_kwargs=dict(one.family.call),
    )
    learnt_BT = torch.as_tensor(inputs.pop("assistant_masks")).bool()
    said_T = inputs["input_ids"][learnt_BT]
    assert one.processor.tokenizer.decode(said_T[:-1]).strip() == ANSWERS[0]
    assert one.family.count_tiles(inputs) == (1 if one.family.positions == "mrope" else 6)
    logits_BTV = one.model(**inputs).logits
    assert torch.isfinite(logits_BTV).all()
    if name != "internvl" and name != "smolvlm":
        inputs["pixel_values_videos"] = torch.flip(inputs["pixel_values_videos"], (-1,))
        assert not torch.allclose(one.model(**inputs).logits, logits_BTV)


def test_chameleon_learns_to_say_pictures_too():
    one = built("chameleon")
    freeze(one.model, one.family, ["llm"])
    inputs, labels_BT = batch_of(one)
    whole_BT = with_image_labels(one, inputs, labels_BT)
    places_BT = inputs["input_ids"] == one.model.config.image_token_id
    assert torch.equal(whole_BT[places_BT].view(3, -1).int(), one.model.get_image_tokens(inputs["pixel_values"]))
    assert torch.equal(whole_BT[~places_BT], labels_BT[~places_BT])
    learns = [p for p in one.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=RATE, weight_decay=0.0)
    losses = []
    for _ in range(3 * STEPS):
        optimizer.zero_grad()
        hidden_BTD = one.model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        labelled_BT = places_BT[:, 1:]
        logits_NV = one.model.lm_head(hidden_BTD[labelled_BT])
        loss = torch.nn.functional.cross_entropy(logits_NV, whole_BT[:, 1:][labelled_BT])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_makes_the_logits_of_the_hidden_states(name):
    one = built(name)
    inputs, labels_BT = batch_of(one)
    if one.family.answers_apart(one.model.config):
        inputs["decoder_input_ids"] = one.model.language_model.prepare_decoder_input_ids_from_labels(labels_BT)
    with torch.no_grad():
        hidden_BTD = hidden_states(one.model, one.family, inputs)
        logits_BTV = one.model(**inputs, use_cache=False).logits
    told_BTV = logits_BTV > torch.finfo().min  # Chameleon's class takes those of picture tokens away
    made_BTV = one.model.get_output_embeddings()(hidden_BTD)
    torch.testing.assert_close(made_BTV[told_BTV], logits_BTV[told_BTV], atol=1e-5, rtol=1e-5)
    assert told_BTV.all() == (name != "chameleon")
