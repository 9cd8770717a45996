"""A report on one version: what it is made of, section by section."""

from curation.analytics.report import origins, pictures, signals
from curation.analytics.report.contents import Report
from curation.analytics.report.correlations import correlations
from curation.analytics.report.cost import cost
from curation.analytics.report.filters import Filters
from curation.analytics.report.funnel import funnel, overlap
from curation.analytics.report.questions import questions
from curation.storage.store import Store
from curation.versions import Chosen


def report(store: Store, chosen: Chosen) -> Report:
    """Everything that is told of a version. Raises InputError where its files cannot be read."""
    manifest = chosen.manifest
    with questions(store, chosen) as asked:
        filters = Filters(asked)
        sections = (
            funnel(asked),
            overlap(asked, filters),
            signals.signals(asked, filters),
            pictures.edges(asked, filters),
            pictures.duplicates(asked, filters),
            origins.languages(asked),
            origins.sizes(asked),
            origins.hosts(asked),
            origins.downloads(asked),
            origins.captions(asked),
            correlations(asked, filters),
            cost(asked),
        )
    tar_bytes = sum(shard.tar_bytes or 0 for shard in manifest.shards)
    facts = {"pool": manifest.pool, "curated": manifest.rows, "shards": len(manifest.shards), "tar_bytes": tar_bytes}
    share = f" ({manifest.rows / manifest.pool:.1%})" if manifest.pool else ""
    summary = f"{manifest.rows:,} of {manifest.pool:,} image–text pairs{share}, in {len(manifest.shards):,} shards"
    return Report(manifest.name, manifest.version, summary, facts, sections)
