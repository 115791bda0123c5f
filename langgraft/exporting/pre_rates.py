"""How often each of llama.cpp's pre-tokenizers gives other ids than a tokenizer: measured by llama.cpp itself.

llama.cpp runs no pattern from the file, so a repaired or unusual pattern may have no exact counterpart. What a
near one costs is no matter of opinion: every candidate is loaded with the tokenizer's own vocabulary and merges,
and reads the same lines.
"""

import importlib.util
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.errors import ModelError
from langgraft.exporting.gguf_pre import CHOICES, pre_for
from langgraft.exporting.gguf_vocab import load_tokenizer
from langgraft.exporting.gguf_writer import write_vocabulary
from langgraft.exporting.llamacpp import open_gguf
from langgraft.exporting.parity import token_gate, token_parity
from langgraft.exporting.parity_lines import parity_kinds, parity_lines
from langgraft.store import read_json
from langgraft.tokenizer.files import is_byte_level

# One name for every way of splitting that llama.cpp has; a release that lacks a name leaves it out.
PRE_TYPES = (
    *("smollm", "gpt-2", "llama-bpe", "smaug-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "default", "falcon"),
    *("poro-chat", "viking", "jais2", "chameleon", "superbpe", "seed-coder", "deepseek-v3", "kimi-k2", "afmoe"),
    *("youtu", "tiny_aya", "deepseek-llm", "deepseek-coder"),
)
PILOT_STEP, MEASURED = 6, 8
OWN = "your text"
_OWN_LINES, _OWN_CHARACTERS = 500, 1000  # some of llama.cpp's patterns run on std::regex, slow on long lines


@dataclass(frozen=True)
class Rates:
    """One pre-tokenizer: `kinds[name]` is `(lines with other ids, lines)` for a kind of text."""

    pre: str
    kinds: dict[str, tuple[int, int]]

    @property
    def rate(self) -> float:
        """Share of all lines whose ids differ."""
        return sum(wrong for wrong, _ in self.kinds.values()) / sum(lines for _, lines in self.kinds.values())

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        shares = {name: wrong / lines for name, (wrong, lines) in self.kinds.items()}
        return {"pre": self.pre, "rate": self.rate, "kinds": shares}


def measure_pre(
    folder: Path, *, texts: Sequence[str] = (), kinds: Mapping[str, Sequence[str]] | None = None
) -> list[Rates]:
    """Every pre-tokenizer that llama.cpp has, against the byte-level tokenizer in `folder`; the best first.

    All are tried on every sixth line, and the best eight on every line.

    Lines are given to llama.cpp in the form that the tokenizer normalises them to: only the splitting is judged.

    Args:
        texts: the user's own text, as a kind of its own (its first 500 lines).
        kinds: kinds of text; the built-in 2,000 lines by default.

    Raises:
        LanggraftError: llama-cpp-python is not installed.
        ModelError: the tokenizer is no byte-level BPE that GGUF can hold.
    """
    wanted = {name: list(lines) for name, lines in (parity_kinds() if kinds is None else kinds).items()}
    own = [line[:_OWN_CHARACTERS] for text in texts for line in text.splitlines() if line.strip() and "\0" not in line]
    wanted = {**({OWN: own[:_OWN_LINES]} if own else {}), **wanted}
    tokenizer = load_tokenizer(folder)
    tokenizer.encode_special_tokens = True
    form = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    lines = {name: [form(line) for line in some] for name, some in wanted.items()}
    expected = {
        name: [encoding.ids for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False)]
        for name, some in lines.items()
    }
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        file = Path(scratch) / "vocabulary.gguf"
        write_vocabulary(folder, file, pre=PRE_TYPES[0])
        pilot = _all_rates(file, PRE_TYPES, lines, expected, step=PILOT_STEP)
        best = _all_rates(file, [rates.pre for rates in pilot[:MEASURED]], lines, expected, step=1)
    return [*best, *pilot[MEASURED:]]


def _all_rates(
    file: Path, names: Sequence[str], lines: dict[str, list[str]], expected: dict[str, list[list[int]]], *, step: int
) -> list[Rates]:
    """Rates on every `step`-th line, the best first; names that this llama.cpp does not know are left out."""
    some = {name: texts[::step] for name, texts in lines.items()}
    ids = {name: texts[::step] for name, texts in expected.items()}
    found = [Rates(pre, kinds) for pre in names if (kinds := _differing(file, pre, some, ids)) is not None]
    return sorted(found, key=lambda rates: rates.rate)


def describe(rates: Rates, *, shown: int = 5) -> str:
    """`qwen35: 8.4% of lines (code 58%, odd spacing 21%; none of English, Hindi)`."""
    shares = {name: wrong / lines for name, (wrong, lines) in rates.kinds.items()}
    worst = sorted((name for name in shares if shares[name]), key=lambda name: -shares[name])
    parts = [", ".join(f"{name} {shares[name]:.1%}" for name in worst[:shown])]
    alike = [name for name in shares if not shares[name]]
    if alike:
        parts.append(f"none of {', '.join(alike)}" if worst else "all kinds alike")
    return f"`{rates.pre}`: {rates.rate:.1%} of lines ({'; '.join(part for part in parts if part)})"


def choose_pre(folder: Path, *, accept_mismatch: float = 0.0, texts: Sequence[str] = ()) -> tuple[str, str]:
    """The `tokenizer.ggml.pre` to write for a byte-level tokenizer, and why: `(value, reason)`.

    An exact counterpart is known by its structure (`pre_for`). Where there is none, the candidates are measured
    in llama.cpp, and the best is taken if the share of lines with other ids is at most `accept_mismatch`.

    Raises:
        ModelError: none is near enough; the message says how near they come and what can be chosen.
    """
    document = read_json(Path(folder) / "tokenizer.json")
    try:
        return pre_for(document)
    except ModelError as error:
        if importlib.util.find_spec("llama_cpp") is None:
            raise
        unknown = error
    found = measure_pre(folder, texts=texts)
    best = found[0]
    if best.rate <= accept_mismatch:
        lines = sum(lines for _, lines in best.kinds.values())
        return best.pre, f"measured on {lines:,} lines in llama.cpp, {describe(best)}, which was accepted"
    raise ModelError(refusal(found, accept_mismatch)) from unknown


def refusal(found: Sequence[Rates], accept_mismatch: float = 0.0) -> str:
    """Why a tokenizer is not exported to GGUF: what each candidate costs, and the user's choices."""
    near = ". ".join(describe(rates) for rates in found[:3])
    others = ", ".join(f"`{rates.pre}` {rates.rate:.0%}" for rates in found[3:8])
    best = found[0]
    return (
        "no `tokenizer.ggml.pre` of llama.cpp splits like this tokenizer, so the GGUF file would get other token ids "
        f"than the model was trained with. Lines with other ids, measured in llama.cpp: {near}. Others: {others}. "
        f"The best needs {math.ceil(best.rate * 1000) / 1000:g} to be accepted, and {accept_mismatch:g} is. {CHOICES}"
    )


def _differing(
    file: Path, pre: str, lines: dict[str, list[str]], expected: dict[str, list[list[int]]]
) -> dict[str, tuple[int, int]] | None:
    """`(differing, lines)` by kind; None where this llama.cpp does not know `pre`."""
    try:
        with open_gguf(file, vocab_only=True, pre=pre) as opened:
            return {
                name: (
                    sum(opened.tokenize(line) != ids for line, ids in zip(some, expected[name], strict=True)),
                    len(some),
                )
                for name, some in lines.items()
            }
    except ModelError as error:
        if "unknown pre-tokenizer type" in str(error):
            return None
        raise


def llamacpp_ids(folder: Path, lines: Sequence[str], *, pre: str | None = None) -> list[list[int]]:
    """Token ids that llama.cpp gives to lines with the tokenizer in `folder`; no model is needed.

    Neither special tokens in the text nor bos are taken into account. `pre` is chosen by `pre_for` if not given.

    Raises:
        LanggraftError: llama-cpp-python is not installed.
        ModelError: the tokenizer cannot be expressed in GGUF.
    """
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        file = Path(scratch) / "vocabulary.gguf"
        write_vocabulary(folder, file, pre=pre)
        with open_gguf(file, vocab_only=True) as opened:
            return [opened.tokenize(line) for line in lines]


def _alike(folder: Path, lines: Sequence[str]) -> list[str]:
    """The lines to which llama.cpp gives the ids of the tokenizer in `folder`."""
    tokenizer = load_tokenizer(folder)
    tokenizer.encode_special_tokens = True
    ours = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)]
    theirs = llamacpp_ids(folder, lines)
    return [line for line, ids, others in zip(lines, ours, theirs, strict=True) if ids == others]


def tokenizer_gate(folder: Path, texts: Sequence[str] = (), *, base: Path | None = None) -> dict[str, Any]:
    """The gate "llama.cpp gives the same token ids" of a tokenizer without a model.

    Lines on which llama.cpp disagrees with `base` as well are told, not counted: an extension can neither cause nor
    mend that (newer Mistral files put no space before a line that begins with one, llama.cpp does).

    It fails where llama.cpp should agree and does not. Where no pre-tokenizer of llama.cpp splits the same way, it
    informs (`passed`, bound `none`): the hub folder is right all the same, and `export --to gguf` will ask.

    Raises:
        LanggraftError: llama-cpp-python is not installed.
    """
    gate: dict[str, Any] = {"name": "llama.cpp gives the same token ids", "passed": True, "bound": "0", "detail": ""}
    try:
        with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
            file = Path(scratch) / "vocabulary.gguf"
            vocabulary = write_vocabulary(folder, file)
            own = [line[:_OWN_CHARACTERS] for text in texts for line in text.splitlines() if "\0" not in line]
            lines = [*parity_lines(), *own[:_OWN_LINES]]
            found = token_parity(folder, file, lines)
            how = f"as `{vocabulary.pre}`" if vocabulary.model == "gpt2" else "as SentencePiece BPE"
            if found["mismatches"] and base is not None:
                alike = _alike(base, lines)
                found = token_parity(folder, file, alike)
                how += f"; {len(lines) - len(alike):,} more differ in the base itself"
        return {**gate, **token_gate(found), "name": gate["name"], "detail": how}
    except ModelError as error:
        reason = str(error)
    document = read_json(Path(folder) / "tokenizer.json")
    if not is_byte_level(document):
        return {**gate, "value": "no GGUF file", "bound": "none", "detail": reason}
    best = measure_pre(folder, texts=texts)[0]
    detail = "no `tokenizer.ggml.pre` splits the same way: `export --to gguf` will ask for --accept-mismatch"
    return {**gate, "value": f"best {describe(best)}", "bound": "none", "detail": detail}
