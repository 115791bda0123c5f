"""The cleaning of `prepare` as steps of a datatrove pipeline, for its executors: processes, Slurm, Ray.

`Prepare` makes a whole corpus, shards cleaned by as many tasks as the executor has; `Clean` is one step between the
reader and the writer of a pipeline of your own. Both call what `langgraft corpus` calls. Needs `langgraft[datatrove]`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document as Record
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers.disk_base import DiskWriter
from datatrove.utils.typeshelper import StatHints

from langgraft.corpus.clean import Cleaner, Dropped, Settings
from langgraft.corpus.document import Document, Input
from langgraft.corpus.part import Part
from langgraft.corpus.prepare import prepare
from langgraft.progress import Log


class Prepare(PipelineStep):
    """`prepare(target, out, **options)`, as the only step of a pipeline, run twice.

    An executor with several tasks cleans the text, each task its share of the shards; the same step in an executor
    with one task, which `depends` on the first, joins the shards, removes duplicates and splits. The files are those
    of a single `prepare`, byte for byte. A task that is run again makes only the shards that are missing.

    Args:
        target: places to read, on a file system that all tasks share.
        out: the folder to write, there too.
        options: those of `prepare`, except `part` and `log`.
    """

    name = "langgraft corpus"
    type = "langgraft"

    def __init__(self, target: Sequence[Input], out: Path, **options: Any) -> None:
        super().__init__()
        self.target, self.out, self.options = target, out, options

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Record]:
        """Clean part `rank + 1` of `world_size`; where there is one task, finish the corpus."""
        yield from data or ()
        part = Part(rank + 1, world_size) if world_size > 1 else None
        with self.track_time("part"):
            summary = prepare(self.target, self.out, part=part, log=Log(quiet=True), **self.options)
        for side in ("target", "source"):
            for what, number in ((summary[side] or {}).get("documents") or {}).items():
                self.stat_update(f"{side}_{what}", value=number)


class Clean(PipelineStep):
    """Normalise documents, keep the lines that are in the language, apply bounds, mask: what `settings` says.

    The text of a document changes, and `metadata["language"]` is set; documents that are left out are counted by reason
    and given to `exclusion_writer` with `metadata["filter_reason"]`, as by datatrove's own filters. Duplicates are for
    datatrove's steps, or for `Prepare`.
    """

    name = "langgraft clean"
    type = "langgraft"

    def __init__(self, settings: Settings, exclusion_writer: DiskWriter | None = None) -> None:
        super().__init__()
        self.settings, self.exclusion_writer = settings, exclusion_writer

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Record]:  # noqa: ARG002 - datatrove's
        """Hand on the documents that are kept."""
        cleaner = Cleaner(self.settings)
        with self.exclusion_writer or contextlib.nullcontext() as writer:
            for record in data or ():
                self.stat_update(StatHints.total)
                with self.track_time():
                    results = list(cleaner(_document(record, self.settings.code)))
                if (reason := self._take(record, results)) is None:
                    self.stat_update(StatHints.forwarded)
                    self.update_doc_stats(record)
                    yield record
                    continue
                self.stat_update(StatHints.dropped, f"dropped_{reason}")
                if writer is not None:
                    record.metadata["filter_reason"] = reason
                    writer.write(record, rank)

    def _take(self, record: Record, results: Sequence[Document | Dropped]) -> str | None:
        """Put what is kept into the record, and count the lines left out; else say why nothing is."""
        reason: str | None = None
        for result in results:
            if isinstance(result, Document):
                record.text = result.text
                record.metadata["language"] = result.language
            elif "part" in result.more:
                self.stat_update(f"lines_{result.reason}")
            else:
                reason = result.reason
                record.text = result.document.text  # with personal data masked, where that is wanted
        return reason


def _document(record: Record, code: str) -> Document:
    source, license_ = (str(record.metadata.get(name) or "") for name in ("source", "license"))
    return Document(record.text, record.id, code, source, license_)
