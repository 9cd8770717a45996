"""The command line as a user meets it: quick, with exit codes, and with errors that are sentences."""

import io
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from curation.storage.store import Store
from flows.command_line import cli
from flows.display import display
from flows.one_run import Request, Session
from flows.progress import Progress, Tally
from flows.status_file import StatusFile
from flows.wording import funnel_warnings

HEAVY = ("ray", "prefect", "torch", "open_clip", "duckdb", "pyarrow", "numpy", "pydantic", "rich", "numba", "yaml")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or left in the user's own folder."""
    monkeypatch.setenv("PAIRMILL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def pairmill(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def write_spec(folder: Path, steps: str = "  - keep: length(caption) >= 3", rows: int = 30) -> Path:
    """A specification over a table of `rows` rows, a third of which have a short caption."""
    lines = [f"http://example.org/{i}.jpg,{'c' * (i % 3 + 1)},{i * 7 % 30}" for i in range(rows)]
    (folder / "pairs.csv").write_text("\n".join(["url,caption,score", *lines]) + "\n")
    text = f"""
        name: tiny
        store: {folder}/store
        source: {{table: {folder}/pairs.csv}}
        steps: STEPS
        shards: {{format: parquet, rows: 4}}
        """
    spec = folder / "spec.yaml"
    spec.write_text(textwrap.dedent(text).replace("STEPS", "\n" + steps))
    return spec


def test_help_cuts_no_summary_where_the_terminal_is_narrow() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    assert "..." not in shown.replace("[ARGS]...", "")
    assert "train on the result, and hold it against the" in " ".join(shown.split())


def test_plan_tells_of_no_stage_without_a_step(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  - keep: length(caption) >= 3\n  - top: {by: score, rows: 3}")
    shown = pairmill("plan", str(spec)).output
    assert "stage 1  steps[0] keep, steps[1] top" in shown
    assert "stage 2" not in shown
    spec.write_text(
        spec.read_text().replace("top: {by: score, rows: 3}", "top: {by: score, rows: 3}\n  - caption_stats")
    )
    assert "stage 2  steps[2] caption_stats" in pairmill("plan", str(spec)).output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from flows.command_line import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stderr.strip() == "[]"
    assert "run " in done.stdout


def test_check_imports_neither_ray_nor_prefect_nor_torch(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    code = (
        "import sys\n"
        "from flows.command_line import cli\n"
        f"cli(['check', {str(spec)!r}], standalone_mode=False)\n"
        "print([name for name in ('ray', 'prefect', 'torch', 'open_clip') if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.stderr.strip(), done.stdout.splitlines()[-1]) == ("[]", "ok")


def test_check_shows_steps_and_columns(tmp_path: Path) -> None:
    done = pairmill("check", str(write_spec(tmp_path)))
    assert done.exit_code == 0
    assert "steps[0] keep" in done.output
    assert "columns: key, url, caption, score" in done.output


def test_check_schema_is_a_json_schema_with_every_step() -> None:
    schema = json.loads(pairmill("check", "--schema").stdout)
    named = [entry["required"][0] for entry in schema["$defs"]["step"]["anyOf"] if "required" in entry]
    assert {"keep", "top", "dedup", "download"} <= set(named)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("  - keep: length(captoin) > 3", "steps[0] keep"),
        ("  - kepe: length(caption) > 3", "did you mean 'keep'?"),
        ("  - top: {by: score, rows: 5, pre: url}", "did you mean 'per'?"),
    ],
)
def test_a_wrong_specification_is_refused_in_one_sentence_with_code_2(tmp_path: Path, steps: str, said: str) -> None:
    for verb in (["check"], ["plan"], ["run", "--executor", "in-process"]):
        done = pairmill(*verb, str(write_spec(tmp_path, steps)))
        assert done.exit_code == 2
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_missing_file_an_unknown_option_and_an_unknown_verb_are_wrong_input(tmp_path: Path) -> None:
    assert pairmill("check", "nowhere.yaml").exit_code == 2
    assert pairmill("run", str(write_spec(tmp_path)), "--lmit", "3").exit_code == 2
    assert pairmill("rnu").exit_code == 2
    assert pairmill("check").exit_code == 2


def test_debug_shows_the_traceback() -> None:
    done = pairmill("check", "nowhere.yaml", "--debug")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr


def test_set_overrides_the_specification(tmp_path: Path) -> None:
    done = pairmill("check", str(write_spec(tmp_path)), "--set", "steps[0].keep=length(nothing) > 1")
    assert done.exit_code == 2
    assert "nothing" in done.stderr


def test_run_prints_one_json_object_last_and_plan_sees_what_is_there(tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path, "  - keep: length(caption) >= 2\n  - top: {by: score, rows: 9}"))
    assert "not in the store yet" in pairmill("plan", spec).output
    assert not (tmp_path / "store").exists()
    done = pairmill("run", spec, "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["rows"] == {"pool": 30, "curated": 9}
    assert [row["rows_out"] for row in record["funnel"]] == [30, 20, 9]
    assert Path(record["manifest"]).exists()
    planned = pairmill("plan", spec)
    assert "in the store: 30 rows" in planned.output
    assert "done" in planned.output


def test_after_a_pilot_the_plan_tells_at_which_pace_the_rest_may_go(tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path, "  - caption_stats\n  - keep: caption_words >= 1"))
    assert "rows/s" not in pairmill("plan", spec).output
    assert pairmill("run", spec, "--executor", "in-process", "--limit", "10").exit_code == 0
    assert re.search(r"to run; run 0 did [\d,.]+ rows/s", pairmill("plan", spec).output)
    looser = ["--set", "steps[1].keep=caption_words >= 0"]
    assert pairmill("run", spec, "--executor", "in-process", "--limit", "12").exit_code == 0
    assert "everything is computed" in pairmill("plan", spec, "--limit", "12", *looser).output


def test_failures_that_may_pass_are_counted_and_tried_again_by_class_or_all(tmp_path: Path) -> None:
    steps = "  - download: {retries: 0, timeout_s: 3}"
    spec = write_spec(tmp_path, steps)
    (tmp_path / "pairs.csv").write_text("url,caption\nhttp://127.0.0.1:9/a.jpg,a\nftp://b/c.jpg,b\n")
    done = pairmill("run", str(spec), "--executor", "in-process")
    assert "1 rows failed for reasons that may pass; --retry-failed tries them again" in done.stdout
    assert re.search(r"steps\[0\] download +2 +0 +2 +unsafe_port 1, unsafe_url 1", done.stdout), done.stdout
    refused = pairmill("run", str(spec), "--retry-failed", "http_404")
    assert refused.exit_code == 2
    assert "--retry-failed http_404: there is no 'http_404'" in refused.stderr
    again = pairmill("run", "--retry-failed", str(spec), "--executor", "in-process")
    assert again.exit_code == 0, again.stderr
    assert pairmill("run").exit_code == 2


def test_a_reselection_starts_neither_ray_nor_prefect(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    code = (
        "import sys\n"
        "from flows.command_line import cli\n"
        f"cli(['run', {str(spec)!r}], standalone_mode=False)\n"
        "print([name for name in ('ray', 'prefect', 'torch') if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stderr.splitlines()[-1] == "[]"
    assert "10 of 30 rows are curated" in done.stdout


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    done = pairmill("run", str(write_spec(tmp_path)), "--limit", "6", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == {"pool": 6, "curated": 2}


def test_operators_lists_every_step_with_parameters_and_columns() -> None:
    rows = {row["name"]: row for row in json.loads(pairmill("operators", "--json").stdout)}
    assert rows["download"]["reads"] == ["url"]
    assert "image" in rows["download"]["adds"]
    assert [p["name"] for p in rows["image_hash"]["parameters"]] == ["kind"]
    assert all(row["summary"].endswith(".") for row in rows.values())
    text = pairmill("operators").stdout
    assert all(f"{name} (" in text for name in rows)


def test_down_is_refused_while_a_run_has_its_workers_there(tmp_path: Path) -> None:
    told = StatusFile(tmp_path / "store", on_background_ray=True)
    told.show(Tally(name="tiny"), now=True)
    refused = pairmill("down")
    assert refused.exit_code == 1
    assert f"error: down: tiny on {tmp_path}/store (process {os.getpid()}) goes on" in refused.stderr
    assert "--yes" in refused.stderr
    assert pairmill("down", "--yes").exit_code == 0
    told.close()
    assert pairmill("down").exit_code == 0


def test_status_and_down_say_that_nothing_runs() -> None:
    assert "no run goes on" in pairmill("status").output
    assert "nothing was up" in pairmill("down").output


def test_schedule_without_a_server_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    spec = str(write_spec(tmp_path))
    done = pairmill("schedule", spec, "--cron", "0 3 * * *")
    assert done.exit_code == 2
    assert "pairmill up" in done.stderr
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    done = pairmill("schedule", spec, "--cron", "0 3 * * *")
    assert done.exit_code == 2
    assert "cannot be reached" in done.stderr


def test_every_verb_has_a_sentence_of_help() -> None:
    for name, command in cli.commands.items():
        assert command.help, name
        assert command.help.splitlines()[0].endswith("."), name


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_display_stays_in_place_on_a_terminal_and_writes_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    tally = Tally(name="demo", stages=2, label="download", rows=1000, rows_done=400, parts_done=4)
    tally.stage_started, tally.last_part, tally.dropped = 100.0, 104.0, {"keep": 7, "download": 12}
    assert tally.rows_per_s == 100
    assert tally.eta_s(now=104.0) == 6
    assert tally.eta_s(now=111.0) is None  # it took longer than that already
    written = io.StringIO()
    display(written).show(tally, now=True)
    assert "download: 400 of 1,000 rows, 100 rows/s" in written.getvalue()
    assert "dropped so far: 12 download, 7 keep" in written.getvalue()
    screen = Screen()
    terminal = display(screen)
    terminal.show(tally, now=True)
    terminal.close()
    assert "400 of 1,000 rows" in screen.getvalue()


def test_status_tells_of_a_run_from_its_file_until_its_process_is_gone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    told = StatusFile(store)
    told.show(Tally(name="demo", stages=1, label="download", rows=10, rows_done=4), now=True)
    done = pairmill("status", "--store", str(store))
    assert "demo on" in done.output
    assert "download: 4 of 10 rows" in done.output
    assert json.loads(pairmill("status", "--json").stdout)["runs"][0]["rows_done"] == 4
    (path,) = (store / "tmp" / "status").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 1, "created": 1.0}))
    assert "no run goes on" in pairmill("status", "--store", str(store)).output
    told.close()
    assert not path.exists()


def test_what_is_asked_of_a_finished_set(tmp_path: Path) -> None:
    spec, store = str(write_spec(tmp_path)), ["--store", str(tmp_path / "store")]
    manifest = json.loads(pairmill("run", spec, "--json").stdout.splitlines()[-1])["manifest"]
    counted = pairmill(
        "sql", "SELECT fate, count(*) AS n FROM samples GROUP BY 1 ORDER BY 1", *store, "--format", "csv"
    )
    assert counted.stdout.splitlines() == ["fate,n", "curated,10", "dropped,20"]
    key = pairmill("sql", "SELECT key FROM samples WHERE fate = 'dropped'", *store, "--format", "csv").stdout.split()[1]
    assert "steps[0] keep: dropped" in pairmill("explain", key, *store).output
    assert pairmill("verify", manifest).exit_code == 0
    assert pairmill("tag", "tiny", "v1", *store).exit_code == 0
    assert "v1" in pairmill("versions", *store).output
    assert "ended alike" in pairmill("diff", "tiny", "tiny@v1", *store).output
    assert "kept" in pairmill("prune", *store).output
    refused = pairmill("sql", "DROP TABLE samples", *store)
    assert (refused.exit_code, refused.stderr[:6]) == (2, "error:")


def test_a_damaged_set_fails_verification_with_code_1(tmp_path: Path) -> None:
    done = pairmill("run", str(write_spec(tmp_path)), "--json")
    manifest = Path(json.loads(done.stdout.splitlines()[-1])["manifest"])
    shard = manifest.parent / json.loads(manifest.read_text())["shards"][0]["parquet"]
    os.chmod(shard, 0o600)
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert pairmill("verify", str(manifest)).exit_code == 1


def test_without_a_name_the_only_store_in_data_is_asked(tmp_path: Path) -> None:
    said = pairmill("versions").stderr
    assert "no store in data/" in said
    for name in ("a", "b"):
        pairmill("run", str(write_spec(tmp_path)), "--store", f"data/{name}")
        if name == "a":
            assert "tiny@" in pairmill("versions").output
    assert "several stores in data/: data/a, data/b" in pairmill("versions").stderr


def test_an_operator_at_which_most_rows_failed_is_worth_a_warning() -> None:
    rows = [
        {"step": "source", "kind": "source", "rows_in": 9, "rows_out": 1, "reason": ""},
        {"step": "few", "kind": "keep", "rows_in": 9, "rows_out": 1, "reason": "a > 1"},
        {"step": "steps[1] download", "kind": "download", "rows_in": 9, "rows_out": 4, "reason": "timeout 5"},
        {"step": "steps[2] image_hash", "kind": "image_hash", "rows_in": 4, "rows_out": 3, "reason": "error 1"},
    ]
    (sentence,) = funnel_warnings(rows, ["keep"])
    assert sentence.startswith("warning: 5 of 9 rows failed at steps[1] download (timeout 5);")


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_store_that_is_a_file_is_the_users_mistake(tmp_path: Path, verb: str) -> None:
    spec = write_spec(tmp_path)
    done = pairmill(verb, str(spec), "--store", str(tmp_path / "pairs.csv"))
    assert done.exit_code == 2
    assert "pairs.csv is a file, and a store is a folder; name another with --store" in done.output


def test_evaluate_takes_the_folder_that_train_made_or_the_model_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.evaluate import suite

    scored: list[Path] = []
    monkeypatch.setattr(suite, "evaluate", lambda _, folder, *__, **___: scored.append(folder) or {"zeroshot": {}})
    for name in ("cats/1.png", "dogs/2.png", "out/model/open_clip_config.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "pictures").mkdir()
    for name in ("cats", "dogs"):
        (tmp_path / name).rename(tmp_path / "pictures" / name)
    for model in ("out", "out/model"):
        assert pairmill("evaluate", model, "--folder", "pictures").exit_code == 0
    assert scored == [Path("out/model")] * 2
    for model, said in (("pictures", "holds no trained model"), ("nowhere", "is no folder")):
        refused = pairmill("evaluate", model, "--folder", "pictures")
        assert refused.exit_code == 2
        assert f"error: evaluate: {model}: {said}; name the folder that `train` made" in refused.stderr


def test_a_run_that_waits_for_prune_says_so(tmp_path: Path) -> None:
    spec, out = write_spec(tmp_path), io.StringIO()
    pruning, done = threading.Event(), threading.Event()

    def prune() -> None:
        with Store.open(tmp_path / "store").lock(exclusive=True):
            pruning.set()
            done.wait(30)

    thread = threading.Thread(target=prune)
    thread.start()
    pruning.wait(30)
    progress = Progress([display(out)])
    waiting = threading.Thread(target=lambda: Session.open(Request(str(spec)), progress).__exit__(None, None, None))
    waiting.start()
    try:
        end = time.monotonic() + 20
        while "waits for `pairmill prune`" not in out.getvalue():
            assert time.monotonic() < end, out.getvalue()
            time.sleep(0.05)
        assert waiting.is_alive()
    finally:
        done.set()
        waiting.join(20)
        thread.join(20)
        progress.close()
    assert not waiting.is_alive()
