"""Training one model folder on some text, or on conversations: `langgraft train`, `langgraft.train` and `.tune`.

The folder that is written holds `model/`, `metrics.jsonl`, `adapter/` where one can hold what was learned,
`checkpoints/` and `packed/` to go on from, and `train.json`: what was asked, and the summary once it is done.

Under torchrun every process makes the same call. The first one prepares what they train on, writes and logs; the others
wait for it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from langgraft.base import embedding_rows, identity, locate, materialise, separator_id
from langgraft.corpus.document import Input
from langgraft.corpus.sources import resolve
from langgraft.corpus.stream import stream
from langgraft.errors import ModelError, RecipeError, TrainingError
from langgraft.processes import rank, world
from langgraft.progress import Log
from langgraft.store import lock, read_json, sha256_file, write_json
from langgraft.tokenizer.files import load, next_id, read_tokenizer
from langgraft.tokenizer.prove import check_pin
from langgraft.training.guidance import size_advice
from langgraft.training.held_out import Watching, hold_out, watch, without
from langgraft.training.loop import Compute, Settings
from langgraft.training.loop import train as loop
from langgraft.training.mixture import packed_tokens
from langgraft.training.packing import Packed, pack
from langgraft.training.parallel import Group, Layout, in_first, join
from langgraft.training.replay import generate_replay

SELF = "self"
ASKED = "train.json"
LOSSES = ("distill", "text")


@dataclass(frozen=True)
class Trained:
    """A trained model in `folder/model`; `facts` as the pretrain stage has them: steps, tokens, loss, speed."""

    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The hub folder."""
        return self.folder / "model"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"folder": str(self.folder), "model": str(self.model), **self.facts}


@dataclass(frozen=True)
class _Job:
    """What one call asks for; `reference` writes replay and is the teacher: the base, or the model as it starts."""

    model: Path
    reference: Path
    old_rows: int
    corpus: tuple[str, ...]
    language: str
    replay: tuple[str, ...]
    source_language: str
    replay_loss: str
    tokens: int | None
    watching: Watching | None

    @property
    def distill(self) -> bool:
        """Whether replay teaches what the reference predicts."""
        return bool(self.replay) and self.replay_loss == "distill"


@dataclass(frozen=True)
class _Ready:
    """What the first process prepared: packed text, the number of steps, held-out texts; or the summary of before."""

    job: _Job
    settings: Settings
    asked: dict[str, Any]
    done: dict[str, Any] | None = None
    target: Path | None = None
    replay: Path | None = None
    held: dict[str, tuple[str, list[str]]] = field(default_factory=dict)


def train(
    model: str | Path,
    out: str | Path,
    *,
    corpus: Sequence[str],
    language: str = "und",
    base: str | Path | None = None,
    replay: Sequence[str] = (),
    source_language: str = "en",
    replay_loss: str = "distill",
    tokens: int | None = None,
    settings: Settings | None = None,
    compute: Compute | None = None,
    watching: Watching | None = None,
    log: Log | None = None,
) -> Trained:
    """Train `model` on the text in `corpus` and write the folder `out`; the same call goes on after an interruption.

    Args:
        model: a model folder, `.gguf` file, `package:NAME` or hub id; usually one that `extend_model` wrote.
        out: folder to write.
        corpus: text in the language to teach: files, folders, globs, `package:...`, `hub:...`.
        language, source_language: codes of the two languages.
        base: what `model` was extended from. Its ids are the old rows, which learn at their own rate, and it is the
            teacher of replay. Without it every row counts as old, and the teacher is `model` as it starts.
        replay: text in the source language, as `corpus`; or ("self",): text that the base writes. None without.
        replay_loss: "distill" matches the teacher's predictions on replay, "text" predicts it.
        tokens: budget, replay included; as much as reads the corpus once when None.
        settings: rates, modes, schedule; its `steps` come from `tokens`. `replay_ratio` holds where there is replay.
        compute: how and where; its `layout` says how the processes that torchrun started share the model.
        watching: when and what to measure meanwhile, on documents of `corpus` and `replay` that are then held out.

    Raises:
        RecipeError: options do not fit together, or something else lies in `out`.
        TrainingError: `out` belongs to a training of other options, model or text, or training cannot go on.
        CorpusError, ModelError: text or model cannot be used.
        Interrupted: a signal came; a checkpoint was written.
    """
    out, compute = Path(out), compute or Compute()
    if world() > 1:
        join(compute.device)
        compute = replace(compute, layout=compute.layout or Layout())
    group = Group(compute.layout) if compute.layout is not None else Group.alone()
    log = Log(quiet=True) if rank() > 0 else log or Log()
    names = (str(model), str(base or ""))

    def begin() -> _Ready:
        _check(out, corpus, replay, replay_loss, watching)
        held.enter_context(lock(out, what="this training"))
        job = _job(out, names, corpus, language, replay, source_language, replay_loss, tokens, watching)
        wanted = replace(settings or Settings(steps=1), steps=1)
        wanted = wanted if replay else replace(wanted, replay_ratio=0.0)
        asked = _asked(job, wanted, *names)
        done = _earlier(out, asked)
        if done is not None:
            log.say(f"train: {out} is done already")
            return _Ready(job, wanted, asked, done)
        return _prepared(_Ready(job, wanted, asked), out, compute, log)

    with ExitStack() as held:
        ready = group.first(begin)
        if ready.done is not None:
            return Trained(out, ready.done)
        facts = _train(ready, out, compute, log, names[1])
        in_first(lambda: write_json(out / ASKED, {"asked": ready.asked, "summary": facts}))
    return Trained(out, facts)


def tune(
    model: str | Path,
    out: str | Path,
    *,
    chats: Sequence[str],
    base: str | Path | None = None,
    system: str = "",
    template: str | Path | None = None,
    dev: float = 0.02,
    epochs: int = 2,
    settings: Settings | None = None,
    compute: Compute | None = None,
    log: Log | None = None,
) -> Trained:
    """Instruction tuning: train `model` on the answers of conversations and write the folder `out`, as `train` does.

    Args:
        model: as in `train`.
        chats: files of rows with `messages`, `conversations` (ShareGPT), or `instruction`, `input` and `output`; JSONL,
            JSON or Parquet; also folders, globs, `package:...`, `hub:...`.
        base: what `model` was extended from; tells LoRA which rows are new.
        system: system prompt for conversations that bring none.
        template: file with a chat template, instead of the model's own.
        dev: conversations to hold out in `out/dev.jsonl`: a share below 1, or a number.
        epochs: how often each conversation is read.
        settings: rates, mode, length and size of a batch; its `steps` come from `epochs`.

    Raises:
        InputError: the chat template cannot be learned with.
        RecipeError, TrainingError, CorpusError, ModelError, Interrupted: as `train`.
    """
    from langgraft.training.tuning import Lessons, sources_of
    from langgraft.training.tuning import tune as learn

    out, log = Path(out), log or Log()
    if world() > 1:
        raise RecipeError("tuning by --chat is for one process; several train together by a recipe: langgraft launch")
    _check_place(out)
    if not chats:
        raise RecipeError("tuning needs conversations: give --chat PATH")
    with lock(out, what="this training"):
        folder = materialise(locate(str(model)), out / "start")
        check_pin(folder)
        old = _old_rows(folder, materialise(locate(str(base)), out / "base")) if base else embedding_rows(folder)
        lessons = Lessons(sources_of(chats), system, Path(template) if template else None, dev, epochs)
        wanted = replace(settings or Settings(steps=1, learning_rate=2e-5, schedule="cosine"), steps=1)
        files = [sha256_file(file) for path in chats for file in resolve(Input(path))]
        facts = {**asdict(lessons), **asdict(wanted), "old_rows": old, "model": identity(locate(str(model))),
                 "text": files, "template": lessons.template and sha256_file(lessons.template)}  # fmt: skip
        asked = dict(json.loads(json.dumps(facts)))
        if (done := _earlier(out, asked)) is not None:
            log.say(f"train: {out} is done already")
            return Trained(out, done)
        # The adapter belongs to the model it was trained on.
        found = learn(
            folder, out, lessons=lessons, settings=wanted, old_rows=old, base=str(model), compute=compute, log=log,
            name="train",
        )  # fmt: skip
        write_json(out / ASKED, {"asked": asked, "summary": found})
    return Trained(out, found)


def _job(
    out: Path, names: tuple[str, str], corpus: Sequence[str], language: str, replay: Sequence[str],
    source_language: str, replay_loss: str, tokens: int | None, watching: Watching | None,
) -> _Job:  # fmt: skip
    model, base = names
    folder = materialise(locate(model), out / "start")
    check_pin(folder)
    reference = materialise(locate(base), out / "base") if base else folder
    old = _old_rows(folder, reference) if base else embedding_rows(folder)
    return _Job(
        folder, reference, old, tuple(corpus), language, tuple(replay), source_language, replay_loss, tokens, watching
    )


def _check(
    out: Path, corpus: Sequence[str], replay: Sequence[str], replay_loss: str, watching: Watching | None
) -> None:
    if not corpus:
        raise RecipeError("train needs text: give --corpus PATH")
    if SELF in replay and len(replay) > 1:
        raise RecipeError("--replay is either self or paths of text, not both")
    if replay_loss not in LOSSES:
        raise RecipeError(f"--replay-loss {replay_loss} is unknown; choose {' or '.join(LOSSES)}")
    if watching is not None and (not replay or SELF in replay):
        raise RecipeError("--retention-every measures on text of the source language too: give some with --replay PATH")
    _check_place(out)


def _check_place(out: Path) -> None:
    there = {path.name for path in out.iterdir() if path.name[0] != "."} if out.is_dir() else set()
    if out.is_file() or (there - {"start", "base"} and ASKED not in there):
        raise RecipeError(f"{out} holds something else; choose another folder with -o")


def _old_rows(model: Path, base: Path) -> int:
    """How many ids the base has.

    Raises:
        ModelError: the model has fewer rows than that, so it was not extended from this base.
    """
    first = next_id(read_tokenizer(base), read_json(base / "config.json"))
    if embedding_rows(model) < first:
        raise ModelError(f"{model} has {embedding_rows(model):,} rows, and the base {first:,} ids; name its own base")
    return first


def _asked(job: _Job, settings: Settings, model: str, base: str) -> dict[str, Any]:
    """What decides the result: options, and the content of model and text."""
    texts = [path for path in (*job.corpus, *job.replay) if path != SELF]
    files = {path: [sha256_file(file) for file in resolve(Input(path))] for path in texts}
    facts = {name: value for name, value in asdict(job).items() if name not in ("model", "reference")}
    names = {"model": identity(locate(model)), "base": identity(locate(base)) if base else {}}
    asked = {**facts, **asdict(settings), **names, "text": files}
    return dict(json.loads(json.dumps(asked)))


def _earlier(out: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a training that is done; None where one begins or goes on.

    Raises:
        TrainingError: what lies there was made from something else.
    """
    file = out / ASKED
    if not file.is_file():
        write_json(file, {"asked": asked})
        return None
    found = read_json(file)
    changed = sorted(name for name in asked if found["asked"].get(name) != asked[name])
    if changed:
        raise TrainingError(
            f"{out} belongs to a training with other settings ({', '.join(changed)} changed); use those, "
            "choose another folder with -o, or delete this one"
        )
    summary: dict[str, Any] | None = found.get("summary")
    return summary if summary and (out / "model").is_dir() else None


def _prepared(ready: _Ready, out: Path, compute: Compute, log: Log) -> _Ready:
    """With the text packed, and the number of steps."""
    job, settings, held = ready.job, ready.settings, {}
    if job.watching is not None:
        for side, paths, code in (
            ("target", job.corpus, job.language),
            ("source", job.replay, job.source_language),
        ):
            held[side] = (code, hold_out(stream(paths, code), job.watching.documents, ", ".join(paths)))
        log.say(f"train: held out {len(held['target'][1])} documents of the text, {len(held['source'][1])} of replay")
    target = _packed(out / "packed" / "target", job.model, stream(job.corpus, job.language), held.get("target"))
    size = packed_tokens(target)
    if advice := size_advice(size):
        log.say(f"train: {advice}")
    step = settings.batch_rows * settings.length
    budget = job.tokens or round(Packed(target, length=settings.length, seed=0).places / (1 - settings.replay_ratio))
    settings = replace(settings, steps=max(-(-budget // step), 1))
    log.say(
        f"train: {settings.steps:,} steps of {step:,} tokens ({settings.batch_rows} rows of {settings.length}), "
        f"{settings.replay_ratio:.0%} of them replay; the text holds {size:,}"
    )
    replay = _replay(job, out, settings, compute, held.get("source"), log) if job.replay else None
    return replace(ready, settings=settings, target=target, replay=replay, held=held)


def _train(ready: _Ready, out: Path, compute: Compute, log: Log, base: str) -> dict[str, Any]:
    job, settings, target = ready.job, ready.settings, ready.target
    if target is None:
        raise AssertionError("a training begins with packed text")
    retention = None
    if job.watching is not None:
        retention = watch(
            job.watching, job.model, job.reference, ready.held, first_new=job.old_rows, window=settings.length,
            compute=compute, log=log,
        )  # fmt: skip
    facts = loop(
        job.model,
        out,
        target=target,
        replay=ready.replay,
        old_rows=job.old_rows,
        settings=settings,
        teacher=job.reference if job.distill else None,
        base=base,
        compute=compute,
        log=log,
        retention=retention,
    )
    return {**facts, "corpus_tokens": packed_tokens(target)}


def _packed(folder: Path, reader: Path, texts: Iterable[str], held: tuple[str, list[str]] | None) -> Path:
    if not (folder / "packed.json").is_file():
        learned = without(texts, held[1]) if held else texts
        pack(load(reader), learned, folder, separator=separator_id(reader))
    return folder


def _replay(
    job: _Job, out: Path, settings: Settings, compute: Compute, held: tuple[str, list[str]] | None, log: Log
) -> Path:
    """Packed replay, cut by the tokenizer of the teacher: text that is there, or that the reference writes first."""
    folder, reader = out / "packed" / "replay", job.reference if job.distill else job.model
    if job.replay != (SELF,):
        return _packed(folder, reader, stream(job.replay, job.source_language), held)
    tokens = int(settings.steps * settings.batch_rows * settings.length * settings.replay_ratio)
    written = generate_replay(
        job.reference, out / "replay", tokens=tokens, length=settings.length, seed=settings.seed,
        device=compute.device, threads=compute.threads, language=job.source_language, log=log,
    )  # fmt: skip
    return _packed(folder, reader, stream([str(written)], job.source_language), None)
