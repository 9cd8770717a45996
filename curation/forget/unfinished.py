"""No run and no prune takes a store whose purge was killed half-way: some records list what others do not."""

from curation.storage import layout
from curation.storage.store import Store
from schemas.errors import StoreError


def require_no_unfinished_purge(store: Store) -> None:
    """Raise StoreError where a purge was killed half-way."""
    if store.get(layout.purge_planned()) is not None:
        raise StoreError(
            f"store {store.root}: a purge was cut short, and nothing runs before it has ended; finish it with "
            f"`pairmill forget --purge --store {store.root}`"
        )
