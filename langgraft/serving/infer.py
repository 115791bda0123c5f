"""`langgraft infer`: answers for every row of JSON and JSONL files, kept row by row, so that a killed run goes on.

Each input file gives one output file of the same name with `.jsonl`; a line holds the row and `output`, or `error`
with the reason. Every row is seeded by its place, so a run in two parts gives the bytes of a run in one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from langgraft.errors import InputError
from langgraft.progress import Log
from langgraft.serving.generate import answer, chat_prompt, text_prompt
from langgraft.serving.model import LanguageModel
from langgraft.serving.sampling import Sampling
from langgraft.store import fingerprint, lock, read_json, write_json
from langgraft.tokenizer.template import Message

SETTINGS = ".infer.json"
SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Task:
    """How a row becomes a prompt.

    `field`: the field that holds it; by default `messages`, `prompt`, `instruction` (with `input`) or `text`,
    whichever is there first. `chat`: through the model's chat template; otherwise the text is continued.
    """

    field: str = ""
    system: str = ""
    chat: bool = True


def input_files(inputs: Sequence[Path]) -> dict[str, Path]:
    """Every .json and .jsonl file of the inputs, by the name of its output.

    Raises:
        InputError: there is none, one does not exist, or two would be written to the same file.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        if not given.exists():
            raise InputError(f"{given} does not exist")
        folder = given.is_dir()
        inside = sorted(path for path in given.rglob("*") if path.suffix in SUFFIXES) if folder else []
        for path in inside or [given]:
            if path.is_dir() or path.suffix not in SUFFIXES:
                raise InputError(f"{path}: there is no .json or .jsonl file; give files of rows, or a folder with some")
            name = str(path.relative_to(given) if inside else Path(path.name)) + ("l" if path.suffix == ".json" else "")
            if name in found:
                raise InputError(
                    f"{found[name]} and {path} would both be written to {name}; give them to separate runs"
                )
            found[name] = path
    return found


def infer(
    model: LanguageModel,
    inputs: Sequence[Path],
    out: Path,
    sampling: Sampling,
    *,
    task: Task | None = None,
    identity: str = "",
    log: Log | None = None,
) -> dict[str, Any]:
    """Answer every row of some files into the folder `out`; the same call goes on after a kill.

    Args:
        identity: what the model is, so that nobody goes on with another one.

    Returns:
        `rows, answered, failed, tokens`, and `reasons`: each reason of a failure and how many rows it hit.

    Raises:
        InputError: an input does not exist, or `out` was begun with other settings.
    """
    files = input_files(inputs)
    sampling = sampling if sampling.seed is not None else replace(sampling, seed=0)
    task, log = task or Task(), log or Log()
    if task.chat and model.template is None:
        raise InputError("this model has no chat template; use --plain, so that it continues each text")
    settings = json.loads(json.dumps({"model": identity, "sampling": asdict(sampling), "task": asdict(task)}))
    with lock(out, what="infer"):
        _same_settings(out / SETTINGS, settings)
        progress = log.progress("answers", sum(_count(path) for path in files.values()), unit="rows")
        for name, path in files.items():
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            done = _done(target)
            progress.advance(done)
            with target.open("ab") as file:
                for number, row in enumerate(rows(path)):
                    if number >= done:
                        _write(file, _answered(model, row, f"{name}:{number}", sampling, task))
                        progress.advance()
    return _summary([out / name for name in files])


def _same_settings(path: Path, settings: dict[str, Any]) -> None:
    if not path.is_file():
        write_json(path, settings)
        return
    before = read_json(path)
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        raise InputError(
            f"{path.parent} was begun with another {changed[0]}; choose another folder with -o, or delete it first"
        )


def rows(path: Path) -> Iterator[Any]:
    """The rows of a JSONL file (of a damaged line: an InputError in its place), or of a JSON file's list.

    Raises:
        InputError: a JSON file that is none.
    """
    if path.suffix == ".json":
        value = read_json(path)
        yield from value if isinstance(value, list) else [value]
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield InputError(f"line {number} is no JSON: {error}")


def _count(path: Path) -> int:
    if path.suffix == ".json":
        return sum(1 for _ in rows(path))
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _done(path: Path) -> int:
    """Whole lines of an output; what a kill left of another one is cut off."""
    if not path.is_file():
        return 0
    with path.open("r+b") as file:
        whole, count = 0, 0
        for line in file:
            if line.endswith(b"\n"):
                whole, count = whole + len(line), count + 1
        file.truncate(whole)
    return count


def _write(file: BinaryIO, row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    file.flush()


def _answered(model: LanguageModel, row: Any, place: str, sampling: Sampling, task: Task) -> dict[str, Any]:
    kept = dict(row) if isinstance(row, dict) else {} if isinstance(row, InputError) else {"row": row}
    for name in ("output", "error", "finish_reason", "tokens"):
        if name in kept:
            kept[f"given_{name}"] = kept.pop(name)
    try:
        if isinstance(row, InputError):
            raise row
        prompt = prompt_of(model, row, task)
        seed = int(fingerprint([sampling.seed, place])[:12], 16)
        found = answer(model, prompt, replace(sampling, seed=seed), chat=task.chat)
    except InputError as error:
        return {**kept, "error": str(error)}
    return {**kept, "output": found.text, "finish_reason": found.finish, "tokens": len(found.tokens)}


def prompt_of(model: LanguageModel, row: Any, task: Task) -> list[int]:
    """Ids of a row's prompt.

    Raises:
        InputError: the row has no prompt, or the template refuses it.
    """
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, dict):
        raise InputError("the row is neither an object nor a text")
    usual = ("messages", "prompt", "instruction", "text")
    name = task.field or next((one for one in usual if row.get(one)), "")
    value = row.get(name)
    if not value:
        raise InputError(f"the row has no `{task.field}`" if task.field else f"the row has none of {', '.join(usual)}")
    if isinstance(value, list):
        messages = _messages(value, name)
    elif isinstance(value, str):
        more = row.get("input") if name == "instruction" else None
        messages = [{"role": "user", "content": f"{value}\n\n{more}" if isinstance(more, str) and more else value}]
    else:
        raise InputError(f"`{name}` is neither a text nor a list of messages")
    try:
        "".join(message["content"] for message in messages).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"`{name}` holds half a character: {error.reason}") from error
    if not task.chat:
        if isinstance(value, list):
            raise InputError(f"`{name}` is a conversation, and --plain continues texts")
        return text_prompt(model, messages[0]["content"])
    if task.system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": task.system}, *messages]
    return chat_prompt(model, messages)


def _messages(value: list[Any], name: str) -> list[Message]:
    if not all(
        isinstance(one, Mapping) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in value
    ):
        raise InputError(f"`{name}` must be a list of {{role, content}}")
    found = [{"role": one["role"], "content": one["content"]} for one in value]
    # A data set's own answer is what the model shall find.
    return found[:-1] if found[-1]["role"] == "assistant" and len(found) > 1 else found


def _summary(outputs: Sequence[Path]) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    count = tokens = 0
    for path in outputs:
        for row in rows(path):
            count += 1
            tokens += row.get("tokens", 0)
            if "error" in row:
                reasons[row["error"]] = reasons.get(row["error"], 0) + 1
    failed = sum(reasons.values())
    return {"rows": count, "answered": count - failed, "failed": failed, "tokens": tokens, "reasons": reasons}
