"""Runs cases on several ranks each, forked from one process that has imported everything and computed nothing.

    python forked_ranks.py CASES.json

A case has a name, a number of ranks, what to do, and a folder for what came out. Tests must not fork themselves: what
other tests left in their process (torch's threads, above all) ends a forked child, or lets it go on as a second worker.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import open_clip  # noqa: F401  # imported here once, not in every rank
import torch
import torch._dynamo
from small_training import batch_of

import training.evaluate.zeroshot
import training.meters  # noqa: F401
from schemas.any_training import training_of
from schemas.training import TrainingSpec
from training.generative.blip2_stage1 import contrasted
from training.learner import Contrastive
from training.losses import info_nce, pairwise_sigmoid
from training.model import build_model
from training.ranks import MEETING_FILE, Ranks, joined
from training.train import train as train_by

PAIRS, WIDTH = 12, 8


def run_cases(folder: Path, cases: list[dict[str, Any]]) -> None:
    """Run the cases in a process that has computed nothing."""
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-W", "ignore", __file__, folder / "cases.json"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]


def main() -> None:
    """Run the cases, one after the other; a rank that was not meant to die fails all."""
    torch.set_num_threads(1)
    for case in json.loads(Path(sys.argv[1]).read_text()):
        with tempfile.TemporaryDirectory() as folder:
            children = [_forked(case, rank, folder) for rank in range(case["ranks"])]
            statuses = [os.waitpid(child, 0)[1] for child in children]
        if any(statuses) and "kill_at" not in case:
            sys.exit(f"{case}: a rank failed")


def _forked(case: dict[str, Any], rank: int, folder: str) -> int:
    child = os.fork()
    if child == 0:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(case["ranks"])}
        os.environ[MEETING_FILE] = f"{folder}/meeting"
        code = 1
        try:
            {"losses": losses, "contrast": contrast, "gradients": gradients, "train": train}[case["do"]](case, rank)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """image_BD and text_BD of unit length, the same for whoever asks."""
    draw = torch.Generator().manual_seed(3)
    both = [torch.nn.functional.normalize(torch.randn(PAIRS, WIDTH, generator=draw), dim=1) for _ in range(2)]
    return both[0], both[1]


def losses(case: dict[str, Any], rank: int) -> None:
    """Both losses of this rank's rows with their gradients, to one file per rank."""
    with joined("cpu") as ranks:
        found = {
            f"{name}-{chunk}": loss_and_gradients(name, chunk, ranks)
            for name in ("clip", "siglip")
            for chunk in (None, 2)
        }
    torch.save(found, Path(case["out"]) / f"rank-{rank}.pt")


def loss_and_gradients(name: str, chunk: int | None, ranks: Ranks) -> list[torch.Tensor]:
    """[loss, by image_bD, by text_bD, by scale (, by bias)] of a rank's share."""
    size = PAIRS // ranks.count
    mine = slice(ranks.rank * size, (ranks.rank + 1) * size)
    given = [one[mine].clone().requires_grad_() for one in embeddings()]
    given.append(torch.tensor(7.0, requires_grad=True))
    if name == "clip":
        loss = info_nce(*given, chunk, ranks)
    else:
        given.append(torch.tensor(-4.0, requires_grad=True))
        loss = pairwise_sigmoid(*given, chunk, ranks)
    return [loss.detach(), *torch.autograd.grad(loss, given)]


def contrast(case: dict[str, Any], rank: int) -> None:
    """BLIP-2's contrast of this rank's rows with its gradients, to one file per rank."""
    with joined("cpu") as ranks:
        size = len(queries_and_texts()[0]) // ranks.count
        found = contrast_and_gradients(slice(rank * size, (rank + 1) * size), ranks)
    torch.save(found, Path(case["out"]) / f"rank-{rank}.pt")


def queries_and_texts() -> list[torch.Tensor]:
    """query_BQE and text_BE of unit length, the same for whoever asks."""
    draw = torch.Generator().manual_seed(1)
    made = [torch.randn(4, *shape, generator=draw) for shape in ((3, 5), (5,))]
    return [torch.nn.functional.normalize(one, dim=-1) for one in made]


def contrast_and_gradients(rows: slice, ranks: Ranks) -> list[torch.Tensor]:
    """[contrast, by query_bQE, by text_bE] of these rows."""
    given = [one[rows].clone().requires_grad_() for one in queries_and_texts()]
    loss, _ = contrasted(given[0], given[1], 0.1, ranks)
    return [loss.detach(), *torch.autograd.grad(loss, given)]


def gradients(case: dict[str, Any], rank: int) -> None:
    """The loss and all weights' gradients of a batch that the ranks share, to one file."""
    spec = TrainingSpec.model_validate(case["spec"])
    torch.manual_seed(spec.seed)
    model = build_model(spec, "cpu")
    with joined("cpu") as ranks:
        learner = Contrastive(model, spec, ranks)
        batch = batch_of(model, PAIRS)
        size = PAIRS // ranks.count
        mine = slice(rank * size, (rank + 1) * size)
        part = type(batch)(batch.pixels_BCHW[mine], batch.tokens_BT[mine], batch.position, 0)
        [loss] = ranks.mean([float(learner.gradients(part, 0))], learner.device)
        whole = {name: _whole(p.grad) for name, p in model.network.named_parameters() if p.grad is not None}
        norm = torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1e9)
        if ranks.first:
            torch.save({"loss": loss, "norm": _whole(norm), "gradients": whole}, Path(case["out"]) / "gradients.pt")
        else:
            _whole(norm)


def _whole(tensor: Any) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(case: dict[str, Any], rank: int) -> None:
    """A whole training of either task; a rank is killed after so many steps, `kill_at`, or told to stop (`stop_at`)."""
    spec = training_of(case["spec"])
    if case.get("kill_at") and rank == case["ranks"] - 1:
        _after_steps(case["kill_at"], signal.SIGKILL)
    if case.get("stop_at") and rank == case["ranks"] - 1:
        _after_steps(case["stop_at"], signal.SIGTERM)
    if case.get("stop_at"):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    train_by(spec)


def _after_steps(count: int, number: int) -> None:
    """Send this process a signal when it has done so many steps."""
    from training import loop

    original, left = loop.take_step, [count]

    def counted(*args: Any, **kwargs: Any) -> Any:
        done = original(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)
        return done

    loop.take_step = counted


if __name__ == "__main__":
    main()
