"""What a family can be asked for in a stage, checked before anything is built."""

from collections.abc import Sequence

from schemas.errors import InputError
from schemas.generative import Stage
from training.generative.families import Family


def require_stages(family: Family, stages: Sequence[Stage]) -> None:
    """Raises InputError for what the family cannot do, with what it can."""
    for number, stage in enumerate(stages):
        where = f"stages[{number}]."
        require_parts(family, stage.train, where)
        if stage.pack and not family.packs:
            raise InputError(f"{where}pack: rows of {family.name} cannot hold several samples; leave it out")
        if stage.objective not in family.objectives:
            raise InputError(
                f"{where}objective: {family.name} cannot learn by {stage.objective}; it can: "
                f"{', '.join(family.objectives)}"
            )


def require_parts(family: Family, train: Sequence[str], where: str = "") -> None:
    """Raises InputError for a part that the family has not, or that cannot learn."""
    parts = [role for role in family.roles if role not in ("head", *family.frozen)]
    for role in train:
        if role != "lora" and role not in parts:
            cannot = f"its {role} cannot learn" if role in family.frozen else f"it has no {role}"
            raise InputError(f"{where}train: {family.name}: {cannot}; there are: {', '.join([*parts, 'lora'])}")
