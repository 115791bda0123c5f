"""What `langgraft evaluate` does: models of every kind, measured on texts outside any recipe."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.corpus.stream import stream
from langgraft.errors import InputError, RecipeError
from langgraft.evaluation.task_names import task_names
from langgraft.progress import Log
from langgraft.store import fingerprint, lock, read_json, write_json
from langgraft.text import language as language_of

if TYPE_CHECKING:
    from langgraft.evaluation.models import Measured
    from langgraft.evaluation.wanted import Training, Wanted

SETTINGS, RESULTS = ".evaluate.json", "results.json"
METRICS = {"chrf": "chrF", "bleu": "BLEU", "rouge_l": "ROUGE-L"}


def evaluate_command(
    models: Sequence[str],
    sides: dict[str, tuple[Sequence[str], str]],
    out: Path,
    *,
    documents: int = 500,
    window: int = 512,
    stride: int = 256,
    train: Sequence[str] = (),
    tasks: str = "",
    task_folder: Path | None = None,
    task_limit: int | None = None,
    device: str = "auto",
    threads: int = 0,
    **wanted: Any,
) -> dict[str, Any]:
    """`langgraft evaluate`: measure models, the first being what the others are compared with.

    Args:
        models: folders, adapter folders, GGUF files, hub ids or URLs with `#NAME`, each with `NAME=` before it or not.
        sides: for `target` and `source`: paths of held-out text, and the language's code.
        train: text that a model was trained on, so that none of it is asked for.
        tasks: tasks of lm-evaluation-harness, separated by commas, or "auto": those of the language.
        task_folder: YAML files of tasks, and their data.
        task_limit: at most so many samples of each task.
        wanted: fields of `langgraft.evaluation.wanted.Wanted`, those of its dataclasses as dicts; `chat_questions` is
            how many of the questions that come with langgraft are asked.
        out: gets results.json; scores are kept there as they are known, and the same call goes on after a kill.

    Raises:
        RecipeError: `out` holds something else, or was begun with other settings.
        CorpusError: there is no text.
    """
    from langgraft.evaluation.models import named
    from langgraft.evaluation.suite import evaluate
    from langgraft.evaluation.wanted import documents_of, measures

    chosen, log = named(models), Log()
    identity: dict[str, Any] = {
        "models": [one.as_dict() for one in chosen],
        "sides": sides,
        "train": list(train),
        "wanted": wanted,
    }
    names = task_names(tasks, sides["target"][1]) if tasks else []
    identity |= {"tasks": names, "task_folder": str(task_folder), "task_limit": task_limit}
    _begin(out, {**identity, "documents": documents, "window": window, "stride": stride})
    target, source = (language_of(sides[side][1]) for side in ("target", "source"))
    training = (lambda: stream(train, target.code)) if train else None
    with lock(out, what="evaluate"):
        texts = {side: documents_of(paths, code, documents) for side, (paths, code) in sides.items() if paths}
        how: dict[str, Any] = {"window": window, "stride": stride, "documents": documents, "log": log}
        asked = measures(_wanted(training, **wanted), texts, target, source, **how)
        result: dict[str, Any] = {"models": [one.as_dict() for one in chosen]}
        result |= evaluate(chosen, asked, out / "scores", device=device, threads=threads, log=log)
        if len(chosen) == 2 and all(one.kind == "folder" for one in chosen):
            from langgraft.evaluation.compare import tokens
            from langgraft.evaluation.models import folder_of

            with folder_of(chosen[0]) as base, folder_of(chosen[1]) as adapted:
                result["tokens"] = {
                    side: tokens(base, adapted, [one.text for one in found], language_of(sides[side][1]))["tokens"]
                    for side, found in texts.items()
                }
        if names:
            how = {"task_folder": task_folder, "limit": task_limit, "device": device, "threads": threads, "log": log}
            result["tasks"] = _tasks(chosen, names, out / "scores", identity, how)
        write_json(out / RESULTS, result)
    for line in lines(result):
        log.say(line)
    return result


def _wanted(
    training: "Training | None",
    *,
    translation: Mapping[str, Any] | None = None,
    summarisation: Mapping[str, dict[str, Any]] | None = None,
    chat_questions: int = 0,
    **others: Any,
) -> "Wanted":
    """What the command line asks for, as the evaluation has it.

    Raises:
        InputError: an option is none of the words it may be.
    """
    from langgraft.evaluation.answers import ASKS
    from langgraft.evaluation.chat_ends import QUESTIONS
    from langgraft.evaluation.classification import SETTINGS as SIDES
    from langgraft.evaluation.summarisation import Summaries
    from langgraft.evaluation.translation import Translation
    from langgraft.evaluation.wanted import Wanted

    sentences, documents = translation or {}, summarisation or {}
    for one in (sentences, *documents.values()):
        for option, known in (("ask", ASKS), ("setting", SIDES)):
            if one.get(option, known[0]) not in known:
                raise InputError(f"{option} must be one of {', '.join(known)}, not `{one[option]}`")
    return Wanted(
        **others,
        translation=Translation(**sentences),
        summarisation={name: Summaries(**one) for name, one in documents.items()},
        chat_messages=QUESTIONS[:chat_questions],
        training=training,
    )


def _tasks(
    models: "Sequence[Measured]", names: Sequence[str], scores: Path, identity: dict[str, Any], how: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every model's figures in tasks of the harness, model by model kept."""
    from langgraft.evaluation.models import folder_of
    from langgraft.evaluation.suite import kept
    from langgraft.evaluation.tasks import merged, run_tasks

    found = {}
    for one in models:
        with folder_of(one) as folder:

            def ask(folder: Path = folder) -> dict[str, Any]:
                return run_tasks(folder, names, **how)

            found[one.name] = kept(scores / f"{one.name}-tasks.json", {**identity, "model": one.as_dict()}, ask)
    return merged(found)


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Start the folder, or go on in it if a call with the same settings was killed there."""
    mark = fingerprint(settings)
    if (out / SETTINGS).is_file() and not (out / RESULTS).is_file():
        if read_json(out / SETTINGS).get("settings") != mark:
            raise RecipeError(f"{out} was begun with other settings; choose another folder with -o, or delete it")
        return
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise RecipeError(f"{out} exists already; choose another folder with -o, or delete it first")
    write_json(out / SETTINGS, {"settings": mark})


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The results for people, a line a figure."""
    for side, bits in result.get("bits_per_byte", {}).items():
        yield from _lines(f"{side}: bits per byte", bits, relative=True)
    if "code_mixed" in result:
        yield from _lines("code-mixed: bits per byte", result["code_mixed"], relative=True)
    for kind, found in result.get("choice", {}).items():
        for way, choice in found.items():
            yield from _lines(
                f"{kind} choice, {way.replace('_', ' ')} (chance {choice['chance']:.0%})", choice, form=".1%"
            )
    for name, pairs in result.get("minimal_pairs", {}).items():
        yield from _lines(f"minimal pairs {name} (chance 50%)", pairs, form=".1%")
    for kind in ("translation", "summarisation"):
        for name, found in result.get(kind, {}).items():
            for metric, title in METRICS.items():
                if metric in found:
                    yield from _lines(f"{kind} {name.replace('_', ' ')}: {title}", found[metric], form=".1f")
    if "chat" in result:
        yield from _lines("chat answers that come to an end", result["chat"]["ends"], form=".1%")
    for task in result.get("tasks", []):
        for name, figure in task["models"].items():
            error = "" if figure["stderr"] is None else f" ± {figure['stderr']:.3f}"
            change = task["changes"].get(name)
            yield f"{task['task']} ({task['metric']}), {name}: {figure['value']:.3f}{error}" + (
                f"; {change['verdict']}" if change else ""
            )


def _lines(what: str, found: dict[str, Any], *, relative: bool = False, form: str = ".3f") -> Iterator[str]:
    for name, figure in found["models"].items():
        line = f"{what}, {name}: {figure['mean']:{form}} ({figure['low']:{form}} to {figure['high']:{form}})"
        change = found["changes"].get(name)
        if change is not None:
            as_change = "+.1%" if relative else f"+{form}"
            low_high = f"{change['low']:{as_change}} to {change['high']:{as_change}}"
            line += f"; {change['mean']:{as_change}} ({low_high}), {change['verdict']}"
        yield line
