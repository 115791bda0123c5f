"""What a model folder's small files tell, alone and against its base. Gates of surgery are asked where they fit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langgraft.base import check_tokenizer_fits, embedding_rows, tokenizer_size
from langgraft.doctor.subject import Subject
from langgraft.errors import LanggraftError
from langgraft.evaluation.cautions import Finding
from langgraft.exporting.manifest import MANIFEST, manifest_gates
from langgraft.exporting.weights import open_weights
from langgraft.store import read_json
from langgraft.surgery.matrices import find_matrices
from langgraft.surgery.resize import chat_template
from langgraft.surgery.shards import read_headers, same_bytes
from langgraft.tokenizer.files import all_ids, read_tokenizer
from langgraft.tokenizer.prove import check_pin

AGAIN = "copy the whole folder again, or make it again with the stage that wrote it"
NAMED = ("bos_token_id", "eos_token_id", "pad_token_id")


def _model(subject: Subject) -> Path:
    assert subject.model is not None  # every check here needs it
    return subject.model


def files(subject: Subject) -> Iterator[Finding]:
    """Config, tokenizer and weights are there and whole."""
    folder = _model(subject)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            yield Finding("files", f"{name} is missing", str(folder), "–", AGAIN)
    for read in (open_weights, read_tokenizer):
        try:
            read(folder)
        except LanggraftError as error:
            if (folder / "tokenizer.json").is_file() or read is open_weights:
                yield Finding("files", str(error), str(folder), "–", AGAIN)


def manifest(subject: Subject) -> Iterator[Finding]:
    """Files of an export against its manifest, by size and sha256."""
    folder = _model(subject)
    if not (folder / MANIFEST).is_file():
        return
    for gate in manifest_gates(folder):
        if not gate["passed"]:
            fix = "export the model again, or copy the whole folder again"
            yield Finding("manifest", "files are not as they were exported", str(folder), gate["value"], fix)


def drift(subject: Subject) -> Iterator[Finding]:
    """Ids of the pinned text, by tokenizer.json."""
    folder = _model(subject)
    try:
        check_pin(folder)
    except LanggraftError as error:
        fix = "put back the tokenizer.json that was trained with; a model with another one reads nonsense"
        yield Finding("tokenizer-drift", str(error), str(folder / "tokenizer.json"), "ids differ from the pin", fix)


def fit(subject: Subject) -> Iterator[Finding]:
    """Ids have rows; rows without a token (padding) are never generated."""
    folder = _model(subject)
    try:
        check_tokenizer_fits(folder)
    except LanggraftError as error:
        yield Finding("fit", str(error), str(folder), "–", "use the tokenizer and the weights of one and the same run")
        return
    rows, size = embedding_rows(folder), tokenizer_size(read_json(folder / "tokenizer.json"))
    masked = set(_json(folder / "generation_config.json").get("suppress_tokens") or [])
    # A base may bring padding of its own, trained to be silent; only what was added since is judged.
    start = max(size, embedding_rows(subject.base)) if subject.base else size
    free = [row for row in range(start, rows) if row not in masked]
    if free and subject.base:
        fix = "list them in suppress_tokens of generation_config.json, as langgraft's surgery does"
        where, problem = str(folder / "generation_config.json"), "padding rows may be generated"
        yield Finding("fit", problem, where, f"{len(free):,} of {rows - size:,} rows without a token", fix)


def tied(subject: Subject) -> Iterator[Finding]:
    """The config's word on tying, the files, and the base."""
    folder = _model(subject)
    headers, matrices = read_headers(folder), find_matrices(folder)
    one = headers[matrices.embedding]
    fix = (
        "load the embedding's matrix into both, or set tie_word_embeddings to what was trained; with peft, use "
        "ensure_weight_tying=True and merge again"
    )
    where = str(folder / "config.json")
    if matrices.tied:
        others = [headers[name] for name in matrices.copies]
        # Transformers ties by the config, so a head of its own in the files is dropped without a word.
        others += [entry for name, entry in headers.items() if name == "lm_head.weight" and entry not in others]
        if any(other.shape != one.shape or not same_bytes(one, other, one.bytes) for other in others):
            problem = "untied head: the config says tied, the files hold a head that differs from the embedding"
            yield Finding("tied-head", problem, where, "2 different matrices", fix)
    if subject.base is not None:
        before = find_matrices(subject.base).tied
        if before != matrices.tied:
            named = {True: "tied", False: "untied"}
            problem = f"the head is {named[matrices.tied]}, the base's is {named[before]}"
            yield Finding("tied-head", problem, where, f"tie_word_embeddings = {str(matrices.tied).lower()}", fix)


def template(subject: Subject) -> Iterator[Finding]:
    """The chat template is the base's, and has what it opens and closes turns with as tokens."""
    if subject.base is None:
        return
    folder = _model(subject)
    before, after = chat_template(subject.base), chat_template(folder)
    if before == after:
        return
    fix = f"copy the chat template of {subject.base} (chat_template.jinja, or chat_template in tokenizer_config.json)"
    problem = "the chat template is missing" if after is None else "the chat template is not the base's"
    if before is None:
        fix = "keep it only if the model was tuned on chats written with it"
        problem = "there is a chat template, and the base has none"
    yield Finding("template", problem, str(folder), "template differs", fix)


def special(subject: Subject) -> Iterator[Finding]:
    """Special ids exist, agree between config and generation config, and are the base's."""
    folder = _model(subject)
    ids = all_ids(read_tokenizer(folder))
    config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
    known = set(ids.values())
    fix = "write the base's ids into config.json and generation_config.json, or nothing stops the model at its end"
    base = {} if subject.base is None else _json(subject.base / "generation_config.json")
    for key in NAMED:
        for file, found in (("config.json", config), ("generation_config.json", generation)):
            absent = [i for i in _listed(found.get(key)) if i not in known]
            if absent:
                yield Finding("special-ids", f"{key} names no token", str(folder / file), str(absent[0]), fix)
        if subject.base is not None and base.get(key) is not None and generation.get(key) != base[key]:
            figure = f"{generation.get(key)}, the base has {base[key]}"
            where = str(folder / "generation_config.json")
            yield Finding("special-ids", f"{key} is not the base's", where, figure, fix)
    if subject.base is not None:
        before = _json(subject.base / "config.json")
        wrong = [key for key in NAMED if before.get(key) is not None and before[key] != config.get(key)]
        old = all_ids(read_tokenizer(subject.base))
        moved = [token for token, i in old.items() if ids.get(token) != i]
        if wrong:
            figure = f"{config.get(wrong[0])}, the base has {before[wrong[0]]}"
            yield Finding("special-ids", f"{wrong[0]} is not the base's", str(folder / "config.json"), figure, fix)
        if moved:
            problem, how = "ids of the base's tokens changed", "extend the base's own tokenizer, appending new tokens"
            figure = f"{len(moved):,} of {len(old):,}, first {moved[0]!r}"
            yield Finding("special-ids", problem, str(folder / "tokenizer.json"), figure, how)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
