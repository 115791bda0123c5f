"""The report's texts: how both tokenizers cut a sentence, new tokens, and what the models wrote."""

from typing import Any

from langgraft.evaluation import words
from langgraft.evaluation.words import dig


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
    """Every prompt with what each model wrote after it."""
    shown = []
    for item in report.get("generations") or []:
        prompt = str(item.get("prompt") or "")
        answers = [(kind, str(item[kind])) for kind in ("base", "adapted") if item.get(kind) is not None]
        if answers:
            text = prompt + "".join(answer for _, answer in answers)
            shown.append({"prompt": prompt, "answers": answers, **_writing(report, text, item.get("language"))})
    return shown
