"""Runs a function on this node in an environment of its own, where packages are installed that ours must not have."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from schemas.errors import RunError


def run_elsewhere(packages: Sequence[str], function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """What a generator function yields, run where `packages` are installed beside what the cluster has.

    Ray installs them once per node and session, which takes about a minute. The caller's processor is enough: it
    waits meanwhile. Raises RunError.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "num_returns": "streaming", "scheduling_strategy": here}
    task = ray.remote(function).options(runtime_env={"uv": list(packages)}, **options)
    try:
        for reference in task.remote(*arguments):
            yield ray.get(reference)
    except RuntimeEnvSetupError as error:
        said = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        raise RunError(
            f"an environment with {', '.join(packages)} could not be made ({said.strip()}); it is installed from the "
            "package index that uv is told of, and needs virtualenv on every node"
        ) from error
    except RayTaskError as error:
        raise RunError(f"{', '.join(packages)}: {error.cause}") from error
