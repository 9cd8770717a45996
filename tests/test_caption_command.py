"""`pairmill caption` and `pairmill ask`: real files, a real model, and a sentence for whatever is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from test_families import ANSWERS, QUESTION, batch_of, overfit, shown
from tiny_vlm import built, picture

from flows.command_line import cli
from training.generative.parts import freeze
from training.generative.save import save_model

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a captioner that knows three pictures, which lie beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("home")
    one = built("llava")
    freeze(one.model, one.family, ["encoder", "connector", "llm"])
    overfit(one, *batch_of(one))
    one.model.eval()
    save_model(one, home / "data/training/tiny/model")
    for i in range(len(ANSWERS)):
        shown(i).save(home / f"{i}.png")
    torch.set_num_threads(before)
    return home / "data/training/tiny"


def pairmill(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def paths_of(run_folder: Path) -> list[str]:
    return [str(run_folder.parent.parent.parent / f"{i}.png") for i in range(len(ANSWERS))]


def test_a_process_captions_images_in_their_order_by_the_only_model_there_is(run_folder):
    done = subprocess.run(
        [sys.executable, "-m", "flows.command_line", "caption", "0.png", "2.png", "1.png", "--prompt", QUESTION],
        cwd=run_folder.parent.parent.parent,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines() == [f"{i}.png: {ANSWERS[i]}" for i in (0, 2, 1)], done.stderr
    assert done.stderr == ""


def test_captions_as_json_do_not_depend_on_the_batch(run_folder):
    asked = ["caption", *paths_of(run_folder), "--prompt", QUESTION, "--json", "--model", str(run_folder)]
    lines = [json.loads(line) for line in pairmill(*asked).stdout.splitlines()]
    assert lines == [{"image": path, "caption": text} for path, text in zip(paths_of(run_folder), ANSWERS, strict=True)]
    again = pairmill(*asked, "--batch-size", "1").stdout.splitlines()
    assert [json.loads(line) for line in again] == lines


def test_a_question_is_answered_upright(run_folder, tmp_path):
    path = tmp_path / "turned.png"
    turned = Image.open(paths_of(run_folder)[1]).transpose(Image.Transpose.ROTATE_90)
    note = Image.Exif()
    note[0x0112] = 6  # lies on its left side
    turned.save(path, exif=note)
    done = pairmill("ask", str(path), QUESTION, "--model", str(run_folder / "model"))
    assert (done.exit_code, done.stdout) == (0, f"{ANSWERS[1]}\n")


def test_answers_end_where_they_are_told_to(run_folder):
    asked = ["ask", paths_of(run_folder)[0], QUESTION, "--model", str(run_folder), "--max-tokens", "1"]
    assert pairmill(*asked).stdout == "a\n"


@pytest.mark.parametrize(
    ("image", "model", "words"),
    [
        ("nowhere.png", None, "image nowhere.png: cannot be read: No such file"),
        ("broken.png", None, "image broken.png: "),
        ("0.png", None, "no model was trained in data/training/; name one with --model"),
        ("0.png", "empty", "--model empty: holds no config.json; name the folder that `train` made"),
        ("0.png", "/nowhere/at/all", "--model /nowhere/at/all: there is no such folder"),
        ("0.png", "bert", "model type there is no 'bert'; .*families are of: blip-2, chameleon, "),
    ],
)
def test_what_is_wrong_is_a_sentence_before_anything_is_loaded(tmp_path, monkeypatch, image, model, words):
    monkeypatch.chdir(tmp_path)
    picture(0).save("0.png")
    Path("broken.png").write_bytes(Path("0.png").read_bytes()[:60])
    Path("empty").mkdir()
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}')
    done = pairmill("ask", image, QUESTION, *(["--model", model] if model else []))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert re.search(words, done.stderr), done.stderr


def test_several_models_are_named(run_folder, monkeypatch):
    home = run_folder.parent.parent.parent
    monkeypatch.chdir(home)
    (home / "data/training/other/model").mkdir(parents=True)
    (home / "data/training/other/model/config.json").write_text("{}")
    try:
        done = pairmill("caption", "0.png")
    finally:
        (home / "data/training/other/model/config.json").unlink()
    assert done.exit_code == 2
    assert "several models: data/training/other/model, data/training/tiny/model; name one with --model" in done.stderr


def test_help_loads_nothing_of_weight():
    code = "import sys; from flows.command_line import cli; cli.main(['ask', '--help'], standalone_mode=False); "
    code += "print([name for name in ('torch', 'transformers', 'PIL', 'numpy', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
