"""What a run's folders and its report tell."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from langgraft.corpus.dedup import check_leaks
from langgraft.corpus.prepare import read_split
from langgraft.doctor.subject import Subject
from langgraft.errors import CorpusError
from langgraft.evaluation import cautions
from langgraft.evaluation.cautions import Finding
from langgraft.evaluation.words import number
from langgraft.pipeline import STAGES
from langgraft.runs import MARKER, TRAINING
from langgraft.status import holder
from langgraft.store import fingerprint

SILENT = 3600  # seconds without a line in the log of a run that is held
OUTPUTS = {"surgery": "model", **dict.fromkeys(TRAINING, "model"), "corpus": "text", "evaluate": "results.json"}


def stuck_lock(subject: Subject) -> Iterator[Finding]:
    """A lock left by a process that was killed, or held by one that has said nothing for an hour."""
    assert subject.run is not None
    path, log = subject.run / ".lock", subject.run / "log.txt"
    left = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not left:
        return
    if not holder(path):
        fix = "run the same `langgraft run` again: it goes on where it stopped"
        yield Finding("lock", f"the run was killed; {left} held it", str(path), "nobody holds the lock", fix)
    elif log.is_file() and time.time() - log.stat().st_mtime > SILENT:
        hours = (time.time() - log.stat().st_mtime) / 3600
        fix = "look whether that process still works; stop it, and run the same `langgraft run` again"
        yield Finding(
            "lock", f"the run hangs: {left} holds it", str(path), f"no line in the log for {hours:.1f} h", fix
        )


def stages(subject: Subject) -> Iterator[Finding]:
    """Stages that did not finish, that were made from older results than the newest, or that lost their results."""
    assert subject.run is not None
    running = bool(holder(subject.run / ".lock"))
    hashes = {name: fingerprint(marker["record"]) for name, marker in subject.markers.items()}
    for stage in STAGES:
        folder = subject.stages.get(stage.name)
        open_ones = [
            f for f in sorted(subject.run.glob(f"{stage.name}-*")) if f.is_dir() and not (f / MARKER).is_file()
        ]
        if open_ones and folder is None and not running:
            fix = "run the same `langgraft run` again"
            yield Finding("stages", f"{stage.name} did not finish", str(open_ones[-1]), f"no {MARKER}", fix)
        if folder is None:
            continue
        output = OUTPUTS.get(stage.name)
        if output and not (folder / output).exists():
            fix = f"delete {folder.name} and run again"
            yield Finding("stages", f"the result of {stage.name} is missing", str(folder / output), "–", fix)
        needs = subject.markers[stage.name]["record"].get("needs", {})
        old = [name for name, known in needs.items() if name in hashes and hashes[name] != known]
        if old:
            fix = (
                "run `langgraft run` again, so that it is made from the newest results; `langgraft plan` says what runs"
            )
            problem = f"{stage.name} is stale: it was made from an older {old[0]}"
            yield Finding("stages", problem, str(folder), f"{needs[old[0]][:8]}, now {hashes[old[0]][:8]}", fix)


def reported(function: str) -> Callable[[Subject], Iterator[Finding]]:
    """What the report itself warns of, asked of the run."""

    def check(subject: Subject) -> Iterator[Finding]:
        for finding in getattr(cautions, function)(subject.report):
            yield replace(finding, where=f"report.json, {finding.where}")

    check.__doc__ = getattr(cautions, function).__doc__
    return check


gates = reported("failed_gates")
gain = reported("no_gain")
forgetting = reported("forgetting")
fertility = reported("fertility")
little_data = reported("little_data")
wide_intervals = reported("wide_intervals")
ends = reported("endless")


def leaks(subject: Subject) -> Iterator[Finding]:
    """Held-out documents that the training text holds, exactly or (where the corpus was so made) nearly."""
    if "corpus" not in subject.stages:
        return
    options = subject.markers["corpus"].get("options", {})
    fields = subject.markers["corpus"]["record"]["fields"]
    folder = subject.stages["corpus"] / "text"
    for side, key in (("target", "model.language"), ("source", "model.source_language")):
        if not (folder / side).is_dir():
            continue
        try:
            held = [d.text for split in ("dev", "test") for d in read_split(folder, side, split)]
            if not held:
                continue
            train = (document.text for document in read_split(folder, side, "train"))
            found = check_leaks(train, held, fields[key], near=bool(options.get("near_duplicates", True)))
        except CorpusError as error:
            fix = f"delete {subject.stages['corpus'].name} and run again"
            yield Finding("leak", str(error), str(folder / side), "–", fix)
            continue
        if found:
            fix = "make the corpus again: its stage keeps held-out text out; figures on leaked text mean nothing"
            problem = "held-out documents are in the training text: the test set leaked"
            figure = f"{number(found)} training documents repeat one of {number(len(held))} held out"
            yield Finding("leak", problem, str(folder / side), figure, fix)
