"""Training by whichever specification: its task says which loop's page is followed."""

from collections.abc import Callable

from schemas.any_training import AnyTraining
from schemas.generative import GenerativeSpec
from training.contrastive import train_contrastive
from training.generative.train import train_generative
from training.run_folder import TrainResult

Progress = Callable[[int, int, float, float], None]
"""Called as progress(step, steps, loss, samples_per_s); of stages each counts its own steps."""
Tell = Callable[[str], None]


def train(spec: AnyTraining, *, progress: Progress | None = None, tell: Tell = lambda _: None) -> TrainResult:
    """As `train_contrastive` or `train_generative`; `tell` hears a sentence when a stage or an evaluation begins."""
    if isinstance(spec, GenerativeSpec):
        return train_generative(spec, progress=progress, tell=tell)
    return train_contrastive(spec, progress=progress)
