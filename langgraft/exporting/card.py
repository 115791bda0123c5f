"""The model card: README.md of a hub folder, made from what was measured and from nothing else."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraft.base import tokenizer_size
from langgraft.errors import ModelError
from langgraft.exporting.weights import open_weights
from langgraft.methods import suggest
from langgraft.store import atomic_write, read_json

# fact -> what it holds. A fact that is not given leaves no trace in the card.
FACTS: dict[str, str] = {
    "name": "title of the card",
    "summary": "one paragraph in the author's words",
    "language": "list of language codes (ISO 639), the new language first",
    "license": "licence id as the hub knows it",
    "base_model": "hub id of the base",
    "datasets": "list of hub dataset ids",
    "tags": "list of further tags",
    "new_tokens": "tokens added to the vocabulary",
    "bits_per_byte": "list of {text, base, model} with optional low and high (interval of the difference)",
    "fertility": "list of {text, base, model}: tokens per word or other unit, with optional unit",
    "gates": "list of {name, passed} with optional detail",
    "data": "list of {source, license} with optional documents and bytes",
    "training": "what was done: tokens, seconds, steps, device, learning_rate, ... name -> value",
    "token_parity": "what `token_parity` returned for a GGUF file",
    "kl_divergence": "mapping of GGUF type -> what `kl_divergence` returned",
    "limits": "list of sentences on what the model cannot do",
    "versions": "program -> version",
    "results": "list of keyword arguments of huggingface_hub's EvalResult: the card's model-index",
}
_LISTS = ("language", "tags", "datasets", "limits", "bits_per_byte", "fertility", "gates", "data", "results")
_MAPPINGS = ("training", "token_parity", "kl_divergence", "versions")


def model_card(folder: Path, facts: Mapping[str, Any]) -> str:
    """The text of README.md: hub metadata as front matter, then one section for every group of facts.

    `folder` adds what its files say: architecture, parameters, vocabulary, context length. See `FACTS` for
    what `facts` may hold; whatever is missing or None is left out.

    Raises:
        ModelError: an unknown fact (with a suggestion), one of the wrong shape, or a damaged folder.
    """
    given = {key: value for key, value in facts.items() if value is not None}
    _check(given)
    parts = [
        _front_matter(folder, given),
        f"# {_inline(given.get('name') or Path(folder).resolve().name)}",
        str(given.get("summary", "")).strip(),
        _model_section(folder, given),
    ]
    sections: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("bits_per_byte", "Bits per byte (lower is better)", _compared),
        ("fertility", "Tokens per unit of text (lower is better)", _compared),
        ("gates", "Checks", _gates),
        ("training", "Training", _pairs),
        ("data", "Training data", _data),
        ("token_parity", "GGUF: token ids", _parity),
        ("kl_divergence", "GGUF: divergence from this folder", _divergence),
        ("limits", "Limits", lambda lines: "\n".join(f"- {_inline(line)}" for line in lines)),
        ("versions", "Made with", _pairs),
    )
    parts += [f"## {title}\n\n{make(given[key])}" for key, title, make in sections if given.get(key)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_card(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write `model_card` to README.md in `folder`, whole or not at all; returns its path.

    Raises:
        ModelError: as `model_card`.
    """
    path = Path(folder) / "README.md"
    atomic_write(path, model_card(folder, facts))
    return path


def _check(facts: Mapping[str, Any]) -> None:
    for key, value in facts.items():
        if key not in FACTS:
            raise ModelError(f"model card: unknown fact `{key}`; {suggest(key, FACTS)}")
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if key in _LISTS and not is_list:
            raise ModelError(f"model card: fact `{key}` must be a list ({FACTS[key]})")
        if key in _MAPPINGS and not isinstance(value, Mapping):
            raise ModelError(f"model card: fact `{key}` must be a mapping ({FACTS[key]})")
    for key, fields in (
        ("bits_per_byte", ("text", "base", "model")),
        ("fertility", ("text", "base", "model")),
        ("gates", ("name", "passed")),
        ("data", ("source", "license")),
        ("results", ("task_type", "dataset_type", "dataset_name", "metric_type", "metric_value")),
    ):
        for number, row in enumerate(facts.get(key, ())):
            missing = [field for field in fields if not isinstance(row, Mapping) or field not in row]
            if missing:
                raise ModelError(f"model card: entry {number + 1} of `{key}` lacks {', '.join(missing)}")


def _front_matter(folder: Path, facts: Mapping[str, Any]) -> str:
    """YAML that the hub reads; every key comes from a fact or from the folder."""
    from huggingface_hub import EvalResult, ModelCardData

    architectures = read_json(Path(folder) / "config.json").get("architectures") or [""]
    causal = architectures[0].endswith(("ForCausalLM", "LMHeadModel"))
    extended = ["vocabulary-extension"] if facts.get("new_tokens") else []
    data = ModelCardData(
        language=_one_or_list(facts.get("language")),
        license=facts.get("license"),
        base_model=facts.get("base_model"),
        datasets=_one_or_list(facts.get("datasets")),
        tags=list(dict.fromkeys(["langgraft", *extended, *facts.get("tags", ())])),
        pipeline_tag="text-generation" if causal else None,
        library_name="transformers",
        # The hub refuses results without a name for the model.
        model_name=str(facts.get("name") or Path(folder).resolve().name) if facts.get("results") else None,
        eval_results=[EvalResult(**result) for result in facts["results"]] if facts.get("results") else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _one_or_list(values: Sequence[str] | None) -> Any:
    return (values[0] if len(values) == 1 else list(values)) if values else None


def _model_section(folder: Path, facts: Mapping[str, Any]) -> str:
    folder = Path(folder)
    config = read_json(folder / "config.json")
    rows: list[tuple[str, Any]] = [
        ("Base", f"`{facts['base_model']}`" if facts.get("base_model") else None),
        ("Architecture", (config.get("architectures") or [None])[0]),
        ("Parameters", open_weights(folder).parameters),
        ("Embedding rows", config.get("vocab_size")),
        ("Context length", config.get("max_position_embeddings")),
        ("New tokens", facts.get("new_tokens")),
    ]
    if (folder / "tokenizer.json").is_file():
        rows.insert(3, ("Tokens", tokenizer_size(read_json(folder / "tokenizer.json"))))
    known = [(name, _number(value)) for name, value in rows if value is not None]
    return f"## Model\n\n{_table(('', ''), known)}"


def _compared(rows: Sequence[Mapping[str, Any]]) -> str:
    with_interval = any("low" in row and "high" in row for row in rows)
    head = ("text", "base", "this model", *(("difference (95% interval)",) if with_interval else ()))
    lines = []
    for row in rows:
        text = f"{row['text']} ({row['unit']})" if row.get("unit") else str(row["text"])
        cells = [text, _number(row["base"]), _number(row["model"])]
        if with_interval:
            known = "low" in row and "high" in row
            cells.append(f"{_number(row['low'])} to {_number(row['high'])}" if known else "")
        lines.append(tuple(cells))
    return _table(head, lines)


def _gates(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [(str(row["name"]), "passed" if row["passed"] else "FAILED", str(row.get("detail", ""))) for row in rows]
    return _table(("check", "result", "detail"), lines)


def _data(rows: Sequence[Mapping[str, Any]]) -> str:
    optional = [key for key in ("documents", "bytes") if any(row.get(key) is not None for row in rows)]
    lines = [
        (
            str(row["source"]),
            str(row["license"]),
            *(_number(row[key]) if row.get(key) is not None else "" for key in optional),
        )
        for row in rows
    ]
    return _table(("source", "licence", *optional), lines)


def _parity(result: Mapping[str, Any]) -> str:
    return (
        f"{_number(result['lines'])} lines in many scripts compared token for token with llama.cpp: "
        f"{_number(result['mismatches'])} differ."
    )


def _divergence(results: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        (
            kind,
            _number(one["mean"]),
            _number(one["max"]),
            f"{one['top1_agreement']:.1%}",
            _number(one["positions"]),
        )
        for kind, one in results.items()
    ]
    return _table(("type", "mean KL (nats)", "largest KL", "same first choice", "positions"), lines)


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(("", ""), [(str(key).replace("_", " "), _number(value)) for key, value in values.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_inline(cell) for cell in line) + " |" for line in lines)


def _inline(text: Any) -> str:
    """Text that cannot break a table or start a new block."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _number(value: Any) -> str:
    """Integers with separators, floats with four significant digits, the rest as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"
