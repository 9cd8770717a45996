"""Our training step beside open_clip's own loop, on the same synthetic batch in the same run; and from JPEG shards.

    python benchmarks/train_contrastive.py [--models ViT-B-16 ViT-L-14] [--batch 512] [--steps 20] [--rounds 3]

Without a GPU it trains a tiny model, all in float32. open_clip's loop is `open_clip_train.train.train_one_epoch` of the
installed version: once with its best flags (amp_bf16, compiled), once with its defaults (amp). Its batch lies on the
device as floats; ours comes from memory as bytes. From shards, JPEGs of 256 px are read, decoded and resized as a
training does, without a cache. Goals on a GPU: 1.15 times its best flags, 1.5 times its defaults, MFU 0.40 for ViT-B-16
and 0.45 for ViT-L-14, and from shards 0.9 of the synthetic rate.
"""

import argparse
import contextlib
import copy
import gc
import itertools
import logging
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from loader import SIZES, write_set
from open_clip_train.train import train_one_epoch

from schemas.training import TrainingSpec
from training.batches import Batch, batches
from training.checkpoint import State
from training.curated_set import open_sets
from training.learner import Contrastive
from training.loop import take_step
from training.meters import peak_flops, training_flops
from training.model import Model, build_model
from training.optimizer import optimizer_for
from training.spike_guard import SpikeGuard
from training.uploads import uploaded

TINY = str(Path(__file__).parent.parent / "tests" / "tiny_vit.json")
Steps = Callable[[int], None]
OURS, BEST, DEFAULTS, SHARDS = "ours", "open_clip, best flags", "open_clip, defaults", "ours, from JPEG shards"
GPU = torch.cuda.is_available()


def main() -> None:
    """Time each loop in turn, round by round, and print samples/s, MFU and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["ViT-B-16", "ViT-L-14"] if GPU else [TINY])
    parser.add_argument("--batch", type=int, default=512 if GPU else 64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=2000 if GPU else 300, help="in the JPEG shards")
    parser.add_argument("--sides", nargs="+", default=[OURS, SHARDS, BEST, DEFAULTS])
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-compile", action="store_true", help="neither side compiles")
    asked = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        shards = write_set(Path(folder, "set"), asked.pictures, SIZES["256 px"])
        for model in asked.models:
            compare(model, shards, asked)


def compare(name: str, shards: Path, asked: Namespace) -> None:
    """The table of one model."""
    compiled = GPU and not asked.no_compile
    spec = TrainingSpec.model_validate(
        {
            "name": "benchmark", "task": "contrastive", "data": [{"set": str(shards)}], "model": name, "cache_gb": 0,
            "batch_size": asked.batch, "samples": asked.batch * 10**6, "compile": compiled, "shuffle_rows": 1000,
            "workers": asked.workers,
        }
    )  # fmt: skip
    model = build_model(spec, "cuda" if GPU else "cpu")
    batch = synthetic(model, asked.batch)
    rates: dict[str, float] = {}
    with ours(model, spec, batch) as (steps, steps_from_shards):
        for side, one in ((OURS, steps), (SHARDS, steps_from_shards)):
            if side in asked.sides:
                rates[side] = timed(one, asked)
    forget_compiled()
    for side, precision, is_compiled in ((BEST, "amp_bf16", compiled), (DEFAULTS, "amp", False)):
        if side in asked.sides:
            rates[side] = timed(theirs(model, batch, precision if GPU else "fp32", is_compiled), asked)
            forget_compiled()
    print_table(name, rates, model, batch)


def synthetic(model: Model, pairs: int) -> Batch:
    """Noise with captions of full length."""
    side_px = model.side_px
    pixels_BCHW = np.random.default_rng(0).integers(0, 256, (pairs, 3, side_px, side_px), np.uint8)
    tokens_BT = model.tokenize([f"{n} " + "word " * 100 for n in range(pairs)]).numpy()
    return Batch(pixels_BCHW, tokens_BT, (pairs,), 0)


@contextlib.contextmanager
def ours(model: Model, spec: TrainingSpec, batch: Batch) -> Iterator[tuple[Steps, Steps]]:
    """Steps of our loop, with its guard, clipping and clamp: on one batch again and again, and on those of shards."""
    model = replace(model, network=copy.deepcopy(model.network))
    learner = Contrastive(model, spec)
    state = State(model.network, optimizer_for(model.network, spec))
    guard = SpikeGuard([], spec.grad_clip, model.device)
    learner.network.train()

    def on(made: Iterator[Batch]) -> Steps:
        def steps(count: int) -> None:
            before = None
            for _ in range(count):
                taken = take_step(learner, state, next(made), spec, 1e-5, guard)
                if before is not None:
                    before.noted(state)  # one step behind, as in the loop
                before = taken

        return steps

    with contextlib.ExitStack() as opened:
        again = opened.enter_context(uploaded(itertools.repeat(batch), model.device))
        read = opened.enter_context(batches(open_sets(spec.data), spec, model.side_px, model.tokenize, [0], pinned=GPU))
        yield on(again), on(opened.enter_context(uploaded(read, model.device)))


def theirs(model: Model, batch: Batch, precision: str, compiled: bool) -> Steps:
    """Steps of open_clip's loop on a copy of the same network."""
    network = copy.deepcopy(model.network)
    network.output_dict = True
    floats_BCHW = model.normalised(torch.from_numpy(batch.pixels_BCHW))
    tokens_BT = torch.from_numpy(batch.tokens_BT).to(floats_BCHW.device)
    others = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": [p for p in network.parameters() if p.ndim >= 2]}]
    optimizer = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    scaler = torch.amp.GradScaler(device="cuda") if precision == "amp" else None
    trained: Any = torch.compile(network) if compiled else network
    args = Namespace(
        device=str(floats_BCHW.device), precision=precision, distill=False, accum_freq=1, skip_scheduler=True,
        horovod=False, grad_clip_norm=1.0, rank=0, world_size=1, local_rank=0, batch_size=len(tokens_BT),
        log_every_n_steps=10**9, wandb=False, log_local=False,
    )  # fmt: skip
    loss = open_clip.ClipLoss(cache_labels=True)

    def steps(count: int) -> None:
        loader = _Loader([(floats_BCHW, tokens_BT)] * count)
        data = {"train": Namespace(dataloader=loader, set_epoch=lambda epoch: None)}
        train_one_epoch(trained, data, loss, 0, optimizer, scaler, None, None, args)

    return steps


class _Loader(list[Any]):
    """What open_clip asks of a loader."""

    @property
    def num_batches(self) -> int:
        return len(self)

    @property
    def num_samples(self) -> int:
        return sum(len(texts) for _, texts in self)


def timed(steps: Steps, asked: Namespace) -> float:
    """Samples per second: the median of the rounds, after a warm-up that compiles."""
    steps(3)
    rates = []
    for _ in range(asked.rounds):
        begun = time.perf_counter()
        steps(asked.steps)
        if GPU:
            torch.cuda.synchronize()
        rates.append(asked.batch * asked.steps / (time.perf_counter() - begun))
    return statistics.median(rates)


def forget_compiled() -> None:
    """Give back what a side has compiled and kept."""
    torch.compiler.reset()
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()


def print_table(name: str, rates: dict[str, float], model: Model, batch: Batch) -> None:
    """Samples/s, MFU and how many times as quick ours is."""
    flops = training_flops(replace(model, network=copy.deepcopy(model.network).to("meta")), batch.tokens_BT.shape[1])
    peak = peak_flops(model.device)
    named = torch.cuda.get_device_name() if GPU else "CPU"
    print(f"{name}: {named}, batch {len(batch.tokens_BT):,}, {flops / 3e9:.3g} GFLOP forward per pair")
    print(f"{'':<24}{'samples/s':>12}{'MFU':>8}{'ours is':>10}")
    for side, rate in rates.items():
        mfu = f"{rate * flops / peak:.3f}" if peak else "-"
        print(f"{side:<24}{rate:>12,.1f}{mfu:>8}{rates[OURS] / rate:>9.2f}x", flush=True)


if __name__ == "__main__":
    main()
