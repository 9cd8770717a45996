"""What workers ask of a cluster: what operators declare, or what the specification gives them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from curation.stage import OperatorStep, Plan
from schemas.pipeline import Resources


@dataclass(frozen=True)
class Needs:
    """What one worker asks for; 0 for nothing."""

    cpus: float = 1
    gpus: float = 0
    memory_gb: float = 0

    def scaled(self, cpus: float, memory_gb: float) -> "Needs":
        """As much of the processors and the memory; whole processors where it is more than one."""
        share = self.cpus * cpus
        return Needs(math.floor(share) if share > 1 else share, self.gpus, self.memory_gb * memory_gb)


@dataclass(frozen=True)
class WorkerNeeds:
    """What a task and an actor of one run ask for, how many actors there are at most, and whether it asks hosts."""

    task: Needs = Needs()
    actor: Needs = Needs()
    actors: int = 1
    hosts: bool = False

    @classmethod
    def of(cls, plan: Plan, given: Mapping[str, Resources]) -> "WorkerNeeds":
        """The most that any operator of a kind needs: any of them may come to a worker of its kind."""
        steps = [step for step in plan.steps if isinstance(step, OperatorStep)]
        kinds = {actor: [step for step in steps if step.actor == actor] for actor in (False, True)}
        actors = [given[step.name].actors or 1 for step in kinds[True] if step.name in given]
        hosts = any(step.operator.asks_hosts for step in steps)
        return cls(_most(kinds[False], given), _most(kinds[True], given), max(actors, default=1), hosts)

    def fitted(self, nodes: int, node_cpus: float, node_memory_gb: float) -> "WorkerNeeds":
        """The same, scaled down so that a task finds room on a node beside its share of the actors.

        On a small machine actors that take all there is would leave the tasks waiting for ever.
        """
        beside = math.ceil(self.actors / nodes) if self.actors >= nodes else 0
        cpus = _scale(node_cpus, max(self.task.cpus + beside * self.actor.cpus, self.actor.cpus))
        memory = _scale(node_memory_gb, max(self.task.memory_gb + beside * self.actor.memory_gb, self.actor.memory_gb))
        return replace(self, task=self.task.scaled(cpus, memory), actor=self.actor.scaled(cpus, memory))


def _scale(there: float, wanted: float) -> float:
    return min(1.0, there / wanted) if wanted else 1.0


def _most(steps: Iterable[OperatorStep], given: Mapping[str, Resources]) -> Needs:
    every = [_needs(step, given.get(step.name, Resources())) for step in steps] or [Needs()]
    return Needs(
        max(needs.cpus for needs in every),
        max(needs.gpus for needs in every),
        max(needs.memory_gb for needs in every),
    )


def _needs(step: OperatorStep, given: Resources) -> Needs:
    declared = step.operator.resources
    return Needs(
        declared.cpus if given.cpus is None else given.cpus,
        declared.gpus if given.gpus is None else given.gpus,
        declared.memory_gb if given.memory_gb is None else given.memory_gb,
    )
