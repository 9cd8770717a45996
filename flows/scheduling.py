"""`pairmill schedule`: a Prefect deployment that a worker runs; everything in it is absolute."""

import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flows
from flows.prefect_server import answers, configured_url
from schemas.errors import InputError

POOL = "pairmill"
FLOW = "curate"
ENTRYPOINT = "flows/curate.py:curate_flow"


@dataclass(frozen=True)
class Scheduled:
    """A deployment, and how a worker for it is started."""

    name: str
    url: str

    @property
    def worker_command(self) -> str:
        """What runs the deployment when its time comes."""
        beside = Path(sys.executable).with_name("prefect")
        command = shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m prefect"
        return f"{command} worker start --pool {POOL}"


def deploy(spec: str, cron: str, store: str | None, timezone: str) -> Scheduled:
    """Tell the Prefect server to run a specification by a schedule. Raises InputError; no run is started."""
    job = _checked(spec, store)
    url = _server()
    parameters = {"spec": str(Path(spec).absolute()), "store": str(job.store_path), "folder": str(Path.cwd())}
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        _put_deployment(job.spec.name, parameters, _cron(cron, timezone))
    return Scheduled(f"{FLOW}/{job.spec.name}", url)


def _checked(spec: str, store: str | None) -> Any:
    from flows.one_run import Request
    from flows.progress import Progress

    return Request(spec, store).open_job(Progress())


def _server() -> str:
    url = configured_url()
    if url is None:
        raise InputError(
            "schedule: needs a Prefect server that stays; start one with `pairmill up`, or set PREFECT_API_URL"
        )
    if not answers(url):
        raise InputError(f"schedule: the Prefect server {url} cannot be reached; start it, or `pairmill up`")
    return url


def _cron(cron: str, timezone: str) -> Any:
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        said = "; ".join(detail["msg"] for detail in error.errors())
        raise InputError(
            f'schedule: --cron "{cron}" --timezone {timezone}: {said}; write it as in "0 3 * * *"'
        ) from error


def _put_deployment(name: str, parameters: dict[str, Any], schedule: Any) -> None:
    """Make the deployment, or replace the one of that name; its worker pool is made where there is none."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    installed = str(Path(flows.__path__[0]).parent)
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        client.create_deployment(
            client.create_flow_from_name(FLOW),
            name,
            schedules=[DeploymentScheduleCreate(schedule=schedule, slug="cron")],
            parameters=parameters,
            description=f"pairmill run {parameters['spec']}",
            work_pool_name=POOL,
            entrypoint=ENTRYPOINT,
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": installed}}],
        )
