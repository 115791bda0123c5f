"""The report's texts: how both tokenizers cut a sentence, new tokens, and what the models wrote."""

from typing import Any

from langgraft.evaluation import words
from langgraft.evaluation.page import Table
from langgraft.evaluation.words import MODELS, dig
from langgraft.text import languages

KINDS = {
    "continuation": "Continuation",
    "translation": "Translation",
    "code_switch": "Mixed with English",
    "question": "Question",
}


def example(report: dict[str, Any]) -> dict[str, Any] | None:
    """One sentence cut by both tokenizers."""
    found = dig(report, "tokens", "example")
    if not found or not found.get("text"):
        return None
    cuts = [(kind, found[kind]) for kind in ("base", "adapted") if found.get(kind)]
    return {"text": found["text"], "cuts": cuts, **_writing(report, found["text"])}


def _writing(report: dict[str, Any], text: str, code: str | None = None) -> dict[str, str]:
    """`lang` and `dir` for text in the language `code`, the new language if there is none."""
    target = dig(report, "language", "code")
    code = code or target
    scripts = dig(report, "language", "scripts") if code == target else None
    return {"lang": code or "und", "dir": words.direction(code, scripts, text)}


def tokenizer(report: dict[str, Any]) -> dict[str, Any] | None:
    """How the tokenizer was made, and some of its new tokens."""
    section = report.get("tokenizer")
    if not section:
        return None
    facts = (
        ("Method", section.get("method")),
        ("New tokens", words.count(section.get("new_tokens"))),
        ("Vocabulary", words.count(section.get("vocab_size"))),
    )
    sample = [str(piece) for piece in section.get("sample") or []]
    kept = [(label, str(value)) for label, value in facts if value is not None]
    return {"facts": kept, "sample": sample, **_writing(report, "".join(sample))} if kept or sample else None


def generations(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every prompt with what each model wrote after it, and whether that is in the prompt's language."""
    shown = []
    for item in report.get("generations") or []:
        prompt = str(item.get("prompt") or "")
        code = item.get("language")
        answers = [
            {
                "kind": kind,
                "label": label,
                "text": str(item[kind]).strip("\n"),
                **_writing(report, str(item[kind]), code),
                "mark": _mark(dig(item, "written_in", kind), code),
            }
            for kind, label in MODELS.items()
            if item.get(kind) is not None
        ]
        if answers:
            kind = KINDS.get(item.get("kind"), "")
            english = item.get("english")
            shown.append(
                {"prompt": prompt, "what": kind, "english": english, "answers": answers}
                | _writing(report, prompt or str(answers[-1]["text"]), code)
            )
    return shown


def _mark(written_in: dict[str, Any] | None, code: str | None) -> dict[str, str] | None:
    """The language of an answer against the prompt's, where that was judged."""
    if not written_in or written_in.get("right") is None:
        return None
    known = languages()
    seen, asked = (known[key].name if key in known else "" for key in (written_in.get("language") or "", code or ""))
    if not written_in["right"]:
        return {"status": "fail", "text": f"in {seen or 'another language'}"}
    if written_in.get("language") == code:
        return {"status": "pass", "text": f"in {asked}"}
    return {"status": "open", "text": f"may be {asked}"}


def answer_counts(report: dict[str, Any]) -> Table | None:
    """Answers in the right language, by language and model."""
    items = [item for item in report.get("generations") or [] if item.get("written_in")]
    codes = list(dict.fromkeys(item.get("language") for item in items))
    models = [(kind, label) for kind, label in MODELS.items() if any(kind in item["written_in"] for item in items)]
    rows = []
    for code in codes:
        row = [_language_name(report, code)]
        for kind, _ in models:
            marks = [dig(item, "written_in", kind, "right") for item in items if item.get("language") == code]
            judged = [mark for mark in marks if mark is not None]
            row.append(f"{sum(judged)} of {len(judged)}" if judged else "–")
        rows.append(tuple(row))
    columns = (("Prompts in", "text"), *((words.sentence(label), "number") for _, label in models))
    return Table("Answers that are, or may be, in the language of the prompt", columns, tuple(rows)) if rows else None


def _language_name(report: dict[str, Any], code: str | None) -> str:
    known = languages().get(code or "")
    own = dig(report, "language", "name") if code == dig(report, "language", "code") else None
    return str(own or (known.name if known else code or "another language"))
