"""The words of a report: how figures are written, what the three headline cards say, and the verdict.

Everything here takes the report's dict (see `report.render`) with any part of it missing, and says nothing
about figures that are not there.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langgraft.text import languages

Status = Literal["pass", "fail", "open"]

RTL_SCRIPTS = frozenset(
    ("Arabic", "Hebrew", "Syriac", "Thaana", "Nko", "Adlam", "Mandaic", "Samaritan", "Hanifi_Rohingya")
)

# Key of a generation -> how the page calls the model, in the order of a run.
MODELS = {
    "base": "base",
    "surgery": "after surgery",
    "adapted": "after pretraining",
    "aligned": "after parallel text",
    "tuned": "after instruction tuning",
}


@dataclass(frozen=True)
class Card:
    """One of the three things a run has to prove. `status` is "open" where nothing was there to judge by."""

    key: Literal["better", "kept", "cheaper"]
    label: str
    value: str
    caption: str
    notes: tuple[str, ...]
    status: Status


def percent(share: float, *, signed: bool = False, fine: bool = False) -> str:
    """`0.534` -> `53%`; `-0.0062` -> `−0.6%`; `signed` puts a plus before gains, `fine` keeps one decimal."""
    value = abs(100 * share)
    digits = f"{value:.0f}" if value >= 9.95 and not fine else f"{value:.1f}"
    if float(digits) == 0:
        return "0%"
    sign = "−" if share < 0 else "+" if signed else ""
    return f"{sign}{digits}%"


def number(value: float | None) -> str:
    """Whole numbers with thousands separated; others with about three digits that count; `–` for none."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 100:
        text = f"{value:,.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    elif abs(value) >= 0.1 or value == 0:
        text = f"{value:.2f}"
    else:
        text = f"{value:.2g}"
    return text.replace("-", "−")


def count(value: Any) -> str | None:
    """As `number`, but None for none, so that the fact is left out."""
    return None if value is None else number(value)


def duration(seconds: float | None) -> str:
    """`0.42` -> `0.4 s`; `75` -> `1 min 15 s`; `3675` -> `1 h 1 min`."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 600 and whole % 60:
        return f"{whole // 60} min {whole % 60} s"
    hours, minutes = divmod(int(seconds / 60 + 0.5), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(count: float | None) -> str:
    """Bytes in decimal units: `271000000` -> `271 MB`."""
    if count is None:
        return "–"
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 9.95 or unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def span(interval: dict[str, Any]) -> str | None:
    """The 95% interval of a relative change in words, or None where it was not measured."""
    low, high = interval.get("low"), interval.get("high")
    if low is None or high is None:
        return None
    return f"95% interval {percent(low, signed=True, fine=True)} to {percent(high, signed=True, fine=True)}"


def dig(report: dict[str, Any], *path: str) -> Any:
    """The value at `path`, or None where any step is missing."""
    value: Any = report
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def result_of(found: Mapping[str, Any]) -> str:
    """Key of the last model of a run among those for which something was found."""
    return next((key for key in reversed(MODELS) if key in found), "base")


def target_name(report: dict[str, Any]) -> str:
    """Name of the language that was taught."""
    return dig(report, "language", "name") or dig(report, "language", "code") or "the new language"


def source_name(report: dict[str, Any]) -> str:
    """Name of the language the base model knew."""
    return dig(report, "source_language", "name") or dig(report, "source_language", "code") or "the old language"


def text_in(language: str) -> str:
    """`English` -> `English text`; a language without a name -> `text in the old language`."""
    return f"text in {language}" if language.startswith("the ") else f"{language} text"


def sentence(text: str) -> str:
    """`text` with a capital at its start."""
    return text[:1].upper() + text[1:]


def direction(code: str | None, scripts: Sequence[str] | None, text: str) -> Literal["ltr", "rtl"]:
    """Writing direction of a language: by its scripts, by what langgraft knows of it, or by `text` itself."""
    known = languages().get(code or "")
    of = scripts or (known.scripts if known else None)
    if of:
        return "rtl" if of[0] in RTL_SCRIPTS else "ltr"
    kinds = [unicodedata.bidirectional(char) for char in text]
    right = sum(kind in ("R", "AL") for kind in kinds)
    return "rtl" if right > kinds.count("L") else "ltr"


def all_gates(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every check of the run, the tokenizer's own among them, each once."""
    gates = list(report.get("gates") or [])
    names = {gate.get("name") for gate in gates}
    own = [{"stage": "tokenizer", **gate} for gate in dig(report, "tokenizer", "gates") or []]
    return gates + [gate for gate in own if gate.get("name") not in names]


def gate_status(gate: dict[str, Any]) -> Status:
    """Whether a check passed; "open" where it was not judged."""
    passed = gate.get("passed")
    return "open" if passed is None else "pass" if passed else "fail"


def cards(report: dict[str, Any]) -> list[Card]:
    """The headline cards whose figures were measured: better, kept, cheaper."""
    made = (_better(report), _kept(report), _cheaper(report))
    return [card for card in made if card is not None]


def _card_gates(report: dict[str, Any], key: str, language: str | None) -> list[dict[str, Any]]:
    """Checks that belong to a card: marked so, else bits per byte of that language by name."""
    gates = all_gates(report)
    marked = [gate for gate in gates if gate.get("card") == key]
    if marked or language is None:
        return marked
    names = [(gate, str(gate.get("name", "")).casefold()) for gate in gates]
    return [gate for gate, name in names if "bits per byte" in name and language.casefold() in name]


def _judge(gates: list[dict[str, Any]], without: Status) -> Status:
    """One status for several checks; `without` where there is none that was judged."""
    found = {gate_status(gate) for gate in gates} - {"open"}
    return "fail" if "fail" in found else "pass" if found else without


def _notes(report: dict[str, Any], side: str, gates: list[dict[str, Any]]) -> tuple[str, ...]:
    """What stands under a card's caption: interval, held-out documents, and the bound it was judged by."""
    measured = dig(report, "bits_per_byte", side)
    bounds = [f"allowed: {gate['bound']}" for gate in gates if gate.get("bound") not in (None, "")]
    documents = measured.get("documents")
    held_out = f"on {number(documents)} held-out documents" if documents is not None else None
    return tuple(note for note in (span(measured["change"]), held_out, *bounds[:1]) if note)


def _better(report: dict[str, Any]) -> Card | None:
    change = dig(report, "bits_per_byte", "target", "change", "mean")
    if change is None:
        return None
    gates = _card_gates(report, "better", dig(report, "language", "name"))
    high = dig(report, "bits_per_byte", "target", "change", "high")
    status: Status = "open" if high is None else "pass" if high < 0 else "fail"
    if _judge(gates, status) == "fail":
        status = "fail"
    caption = f"bits per byte of {text_in(target_name(report))}, against the base (lower is better)"
    notes = _notes(report, "target", gates)
    return Card("better", "Better", percent(change, signed=True), caption, notes, status)


def _kept(report: dict[str, Any]) -> Card | None:
    change = dig(report, "bits_per_byte", "source", "change", "mean")
    if change is None:
        return None
    gates = _card_gates(report, "kept", dig(report, "source_language", "name"))
    low = dig(report, "bits_per_byte", "source", "change", "low")
    # Without a bound, only "no measurable loss" can be judged; how much loss is too much is the user's call.
    status = _judge(gates, "open" if low is None or low > 0 else "pass")
    caption = f"bits per byte of {text_in(source_name(report))}, against the base (near 0 is kept)"
    notes = _notes(report, "source", gates)
    return Card("kept", "Kept", percent(change, signed=True), caption, notes, status)


def _cheaper(report: dict[str, Any]) -> Card | None:
    saved = dig(report, "tokens", "target", "saved")
    if saved is None:
        return None
    gates = _card_gates(report, "cheaper", None)
    status = _judge(gates, "pass" if saved >= 0.0005 else "fail" if saved <= -0.0005 else "open")
    caption = f"tokens for the same {text_in(target_name(report))}, against the base"
    notes = []
    base, adapted = (dig(report, "tokens", "target", model, "tokens_per_character") for model in ("base", "adapted"))
    if base is not None and adapted is not None:
        notes.append(f"{number(base)} → {number(adapted)} tokens per character")
    base, adapted = (dig(report, "tokens", "target", model, "tokens") for model in ("base", "adapted"))
    if base is not None and adapted is not None:
        notes.append(f"{number(base)} → {number(adapted)} tokens in all")
    notes += [f"asked for: {gate['bound']}" for gate in gates if gate.get("bound") not in (None, "")]
    return Card("cheaper", "Cheaper", percent(-saved, signed=True), caption, tuple(notes), status)


def verdict(report: dict[str, Any]) -> tuple[Status, str]:
    """One plain sentence on what the run proved and what it did not, and its overall status."""
    made = cards(report)
    gates = all_gates(report)
    measured = [part for part in (_target_clause(report), _source_clause(report, made)) if part]
    if not measured and not gates:
        return "open", "Nothing has been measured in this run yet."
    parts = [*(measured or ["No model has been measured yet"]), _checks_clause(report, gates)]
    statuses: list[Status] = [card.status for card in made] + [gate_status(gate) for gate in gates]
    if "fail" in statuses:
        overall: Status = "fail"
    else:
        overall = "pass" if gates and made and set(statuses) == {"pass"} else "open"
    return overall, sentence("; ".join(parts)) + "."


def _target_clause(report: dict[str, Any]) -> str | None:
    saved = dig(report, "tokens", "target", "saved")
    change = dig(report, "bits_per_byte", "target", "change") or {}
    claims = []
    if saved is not None:
        amount = f"{percent(abs(saved))} {'fewer tokens' if saved > 0 else 'more tokens'}"
        claims.append("takes as many tokens as before" if amount.startswith("0%") else f"takes {amount}")
    if change.get("mean") is not None:
        claims.append(_predicted(change))
    if not claims:
        return None
    text = f"{text_in(target_name(report))} now {' and '.join(claims)}"
    return text if change.get("mean") is not None else f"{text}; how well it is predicted was not measured"


def _predicted(change: dict[str, Any]) -> str:
    """What a change of bits per byte means; a difference that chance could explain is not called one."""
    mean: float = change["mean"]
    low, high = (mean if change.get(bound) is None else change[bound] for bound in ("low", "high"))
    if high < 0:
        return f"is predicted {percent(-mean)} better"
    if low > 0:
        return f"is predicted {percent(mean)} worse"
    return "shows no measurable difference in how well it is predicted"


def _source_clause(report: dict[str, Any], made: list[Card]) -> str | None:
    change = dig(report, "bits_per_byte", "source", "change") or {}
    mean, high = change.get("mean"), change.get("high")
    if mean is None:
        return None
    name, amount = source_name(report), percent(abs(mean))
    kept = next(card for card in made if card.key == "kept")
    if amount == "0%":
        return f"{name} is unchanged"
    if mean > 0 and kept.status != "pass":
        return f"{name} is predicted {amount} worse"
    if high is not None and high < 0:
        return f"{name} {_predicted(change)}"
    return f"{name} is within {amount} of the base"


def _checks_clause(report: dict[str, Any], gates: list[dict[str, Any]]) -> str:
    if not gates:
        return "no checks were made"
    failed = [str(gate.get("name", "unnamed")) for gate in gates if gate_status(gate) == "fail"]
    unjudged = sum(gate_status(gate) == "open" for gate in gates)
    if failed:
        named = ", ".join(f"“{name}”" for name in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        return f"{len(failed)} of {len(gates)} checks failed: {named}{more}"
    if unjudged:
        return f"{len(gates) - unjudged} of {len(gates)} checks passed, {unjudged} not judged"
    return "every check passed" if report.get("bits_per_byte") else "every check so far passed"
