"""What a run's folders and its report tell."""

import time
from collections.abc import Iterator
from typing import Any

from langgraft.corpus.dedup import check_leaks
from langgraft.corpus.prepare import read_split
from langgraft.doctor.subject import Finding, Subject
from langgraft.errors import CorpusError
from langgraft.evaluation.words import dig, number, percent, size
from langgraft.pipeline import STAGES
from langgraft.runs import MARKER
from langgraft.status import holder
from langgraft.store import fingerprint

SILENT = 3600  # seconds without a line in the log of a run that is held
LOSS = 0.02  # rise of source bits per byte, beyond noise
DEAR = 2.0  # times the tokens per byte that the source language takes
UNUSED = 0.05  # share of tokens that an extension must save
PER_TOKEN = 10  # tokens of training for each new token
DOCUMENTS = 10
EPOCHS = 16  # after which repeated text teaches nothing (Muennighoff et al. 2023, arXiv 2305.16264)
OUTPUTS = {"surgery": "model", "pretrain": "model", "corpus": "text", "evaluate": "results.json"}


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


def gates(subject: Subject) -> Iterator[Finding]:
    """Checks of the run that failed."""
    for gate in subject.report.get("gates") or []:
        if gate.get("passed") is False:
            figure = f"{gate.get('value')}, allowed {gate.get('bound')}"
            fix = "see the report for what it means; the stage's section in docs/recipe.md has the bound"
            yield Finding("gates", f"gate failed: {gate.get('name')}", f"stage {gate.get('stage')}", figure, fix)


def gain(subject: Subject) -> Iterator[Finding]:
    """The target language is predicted no better than by the base."""
    change = dig(subject.report, "bits_per_byte", "target", "change") or {}
    if change.get("high") is not None and change["high"] >= 0:
        fix = "train longer or on more text; check that the text is in the language (corpus.html)"
        problem = "the language is predicted no better than before"
        yield Finding("gain", problem, "report.json, bits_per_byte.target", _interval(change), fix)


def forgetting(subject: Subject) -> Iterator[Finding]:
    """The source language is clearly worse."""
    change = dig(subject.report, "bits_per_byte", "source", "change") or {}
    if change.get("mean") is not None and change["mean"] > LOSS and (change.get("low") or 0) > 0:
        fix = 'raise pretrain.replay_ratio (0.25), use replay_loss = "distill", lower old_rows_learning_rate'
        problem = "the source language was partly forgotten"
        yield Finding("forgetting", problem, "report.json, bits_per_byte.source", _interval(change), fix)


def _interval(change: dict[str, Any]) -> str:
    text = percent(change["mean"], signed=True)
    if change.get("low") is None or change.get("high") is None:
        return text
    return f"{text} ({percent(change['low'], signed=True)} to {percent(change['high'], signed=True)})"


def fertility(subject: Subject) -> Iterator[Finding]:
    """New tokens that save nothing, or text that stays dear without new tokens."""
    tokens, new = subject.report.get("tokens") or {}, dig(subject.report, "tokenizer", "new_tokens")
    saved = dig(tokens, "target", "saved")
    if new and saved is not None and saved < UNUSED:
        fix = (
            "learn the tokens from text like this; see `langgraft tokenizer report`, and repair_marks for Indic scripts"
        )
        problem = "the extension is hardly used: the new tokens save nothing"
        yield Finding("fertility", problem, "report.json, tokens.target", f"{percent(saved)} saved", fix)
    ours, theirs = (dig(tokens, side, "adapted", "bytes_per_token") for side in ("target", "source"))
    if not new and ours and theirs and theirs > DEAR * ours:
        fix = "add tokens: [tokenizer] new_tokens = 2048; `langgraft advise` says how many are worth it"
        problem = "the language takes many tokens, and no tokens were added"
        yield Finding(
            "fertility", problem, "report.json, tokens", f"{ours:.2f} bytes per token, {theirs:.2f} source", fix
        )


def little_data(subject: Subject) -> Iterator[Finding]:
    """Too few held-out documents, tokens for each new token, or text that was read over and over."""
    report = subject.report
    for side in ("target", "source"):
        documents = dig(report, "bits_per_byte", side, "documents")
        if documents is not None and documents < DOCUMENTS and not (side == "source" and documents == 0):
            fix = "hold out more: corpus.test (target) or corpus.source_test; intervals need some dozens"
            where = f"report.json, bits_per_byte.{side}"
            yield Finding("little-data", "too few held-out documents", where, f"{documents} documents", fix)
    tokens, new = dig(report, "training", "tokens"), dig(report, "tokenizer", "new_tokens")
    if tokens and new and tokens / new < PER_TOKEN:
        fix = "train longer (pretrain.tokens), or add fewer tokens (tokenizer.new_tokens)"
        figure = f"{tokens / new:.1f} training tokens for each new token"
        yield Finding("little-data", "too little training for so many new tokens", "report.json, training", figure, fix)
    seen, text = dig(report, "training", "target_bytes"), dig(report, "corpus", "target", "splits", "train", "bytes")
    if seen and text and seen / text > EPOCHS:
        fix = "find more text, or train for fewer tokens; after four readings each one teaches less"
        problem, figure = "the same text was read over and over", f"{seen / text:.0f} times {size(text)}"
        yield Finding("little-data", problem, "report.json, training", figure, fix)


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
            yield Finding("files", str(error), str(folder / side), "–", fix)
            continue
        if found:
            fix = "make the corpus again: its stage keeps held-out text out; figures on leaked text mean nothing"
            problem = "held-out documents are in the training text: the test set leaked"
            figure = f"{number(found)} training documents repeat one of {number(len(held))} held out"
            yield Finding("leak", problem, str(folder / side), figure, fix)
