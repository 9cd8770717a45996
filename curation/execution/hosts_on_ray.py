"""The one host policy of a run on Ray: an actor that holds it, and how workers reach it."""

from typing import Any

import ray

from curation.fetch.hosts.host_policy import HostLimits
from curation.fetch.hosts.run_hosts import Reply, Report, RunHosts
from curation.fetch.hosts.site_book import SiteBook
from curation.storage.store import Store

_PATIENCE_S = 60.0


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=2)
class _Holder:
    """Keeps one host policy for each set of limits; what sites said is shared by all."""

    def __init__(self) -> None:
        self._sites: dict[str, SiteBook] = {}
        self._hosts: dict[tuple[str, HostLimits], RunHosts] = {}

    def exchange(self, store: Store, limits: HostLimits, report: Report) -> Reply:
        name = str(store.root)
        if (name, limits) not in self._hosts:
            sites = self._sites.setdefault(name, SiteBook(store))
            self._hosts[name, limits] = RunHosts(limits, sites)
        return self._hosts[name, limits].exchange(report)


class HostsOnRay:
    """Starts the actor when it is first handed to a task; picklable is what `reach` gives."""

    def __init__(self) -> None:
        self._holder: Any = None

    def reach(self) -> "Reach":
        """What a worker needs in order to ask."""
        if self._holder is None:
            self._holder = _Holder.remote()  # type: ignore[attr-defined]
        return Reach(self._holder)

    def close(self) -> None:
        """Stop the actor."""
        if self._holder is not None:
            ray.kill(self._holder)
            self._holder = None


class Reach:
    """A way to the actor, for a worker."""

    def __init__(self, holder: Any) -> None:
        self._holder = holder

    def __call__(self, store: Store, limits: HostLimits, report: Report) -> Reply:
        """One exchange. Raises Ray's errors where the actor is gone."""
        reply: Reply = ray.get(self._holder.exchange.remote(store, limits, report), timeout=_PATIENCE_S)
        return reply
