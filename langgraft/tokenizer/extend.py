"""Continued BPE: learn further merges on top of a byte-level BPE tokenizer.

The corpus's pre-tokens are encoded with the base, every resulting unit becomes one private code point, and
the Rust `BpeTrainer` learns merges over those. Mapped back they are appended: old merges first, then the new
ones in the order learned, new ids after the highest old one. So base merges run exactly as before, and new
ones only join what the base left apart.

A unit is a run of base tokens whose ends fall on character boundaries. A character that the base spells in
several tokens becomes two private symbols, head and tail, that occur only together: joining them is itself a
merge the trainer ranks by frequency ("complete this character"), and no merge can ever cross into half a
character. Units outside the language's scope end the word, so no merge can leak.

Source: byte-pair encoding as in Sennrich et al. 2016 (arXiv 1508.07909), continued as TRAPS 2-3 describe.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langgraft.errors import TokenizerError
from langgraft.progress import Log
from langgraft.store import read_json
from langgraft.text import Language
from langgraft.tokenizer.files import (
    from_data,
    next_id,
    read_tokenizer,
    token_bytes,
    without_pre_tokenizer,
    write_tokenizer,
)
from langgraft.tokenizer.pretokenizer import repair
from langgraft.tokenizer.scope import Scope

FIRST_SYMBOL = 0x20000  # private use of planes 2 and up: room for 900,000 symbols
BATCH = 1000
SPACE = "Ġ"


@dataclass
class Extension:
    """What an extension added: `tokens` in id order from `first_id`; `merges` may be more than tokens."""

    first_id: int
    tokens: list[str] = field(default_factory=list)
    merges: list[tuple[str, str]] = field(default_factory=list)
    pre_tokenizer_repaired: bool = False


def extend(
    base: Path,
    texts: Iterable[str],
    out: Path,
    *,
    language: Language,
    new_tokens: int,
    max_token_characters: int = 12,
    min_frequency: int = 5,
    repair_marks: bool = True,
    log: Log | None = None,
) -> Extension:
    """Extend the tokenizer in `base` with `new_tokens` learned from `texts`; write the folder `out`.

    `max_token_characters` bounds a new token's length in characters; `min_frequency` is the fewest times a
    merge must occur in `texts`. Fewer tokens than asked are learned when the text supports no more.

    Raises:
        TokenizerError: the base is not byte-level BPE, or `texts` hold nothing of the language's scripts.
    """
    data = read_tokenizer(base)
    repaired = False
    if repair_marks and language.marks and data["pre_tokenizer"] is not None:
        fixed = repair(data["pre_tokenizer"])
        repaired = fixed != data["pre_tokenizer"]
        data["pre_tokenizer"] = fixed
    config_path = Path(base) / "config.json"
    config = read_json(config_path) if config_path.is_file() else {}
    scope = Scope(language.scripts)
    words = count_words(data, texts, scope, log=log)
    if not words:
        raise TokenizerError(
            f"the corpus holds no text in the scripts of {language.name} ({', '.join(language.scripts)}); "
            "check the language and the corpus"
        )
    units = Units(data, scope)
    merges = learn(units, words, new_tokens, min_frequency=min_frequency)
    extension = Extension(next_id(data, config), pre_tokenizer_repaired=repaired)
    append(data, extension, units.expand(merges), new_tokens, max_token_characters)
    write_tokenizer(data, base, out)
    return extension


def count_words(
    data: dict[str, Any], texts: Iterable[str], scope: Scope, *, log: Log | None = None
) -> Counter[str]:
    """Count the pre-tokens (spelled in the byte alphabet) of `texts` that hold a character in scope."""
    tokenizer = from_data(data)
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    if pre_tokenizer is None:
        raise TokenizerError("the base has no pre-tokenizer; only byte-level BPE can be extended")
    counts: Counter[str] = Counter()
    done = 0
    for text in texts:
        if normalizer is not None:
            text = normalizer.normalize_str(text)
        counts.update(piece for piece, _ in pre_tokenizer.pre_tokenize_str(text))
        done += 1
        if log is not None and done % 50_000 == 0:
            log.say(f"counting words: {done:,} documents, {len(counts):,} distinct")
    kept = {}
    for piece, count in counts.items():
        text = token_bytes(piece).decode("utf-8", "replace")
        if any(ord(char) in scope for char in text):
            kept[piece] = count
    return Counter(kept)


class Units:
    """Spells pre-tokens as private symbols, one for each unit of the base's own encoding."""

    def __init__(self, data: dict[str, Any], scope: Scope) -> None:
        self.scope = scope
        self.bpe = without_pre_tokenizer(data)
        self.tokens: dict[int, str] = {i: token for token, i in data["model"]["vocab"].items()}
        self._texts: dict[str, bytes] = {}
        # Heads come first in code-point order: the trainer breaks ties by symbol order, and a character must
        # be completed before it can join its neighbour.
        self._heads: dict[tuple[str, ...], int] = {}
        self._symbols: dict[str, int] = {}

    def spell(self, words: Iterable[str]) -> Iterator[list[list[tuple[str, ...]]]]:
        """For each word, its runs of in-scope units; a unit is the tuple of its base tokens."""
        batch: list[str] = []
        for word in words:
            batch.append(word)
            if len(batch) == BATCH:
                yield from self._spell_batch(batch)
                batch = []
        yield from self._spell_batch(batch)

    def _spell_batch(self, batch: list[str]) -> Iterator[list[list[tuple[str, ...]]]]:
        for encoding in self.bpe.encode_batch(batch, add_special_tokens=False):
            runs: list[list[tuple[str, ...]]] = [[]]
            for unit in self._group([self.tokens[i] for i in encoding.ids]):
                if self.usable(unit):
                    runs[-1].append(unit)
                elif runs[-1]:
                    runs.append([])
            yield [run for run in runs if run]

    def _group(self, tokens: list[str]) -> Iterator[tuple[str, ...]]:
        """Cut a base encoding into the shortest groups whose ends are character boundaries."""
        group: list[str] = []
        pending = b""
        for token in tokens:
            group.append(token)
            pending += token_bytes(token)
            try:
                pending.decode("utf-8")
            except UnicodeDecodeError:
                continue
            yield tuple(group)
            group, pending = [], b""
        if group:
            yield tuple(group)

    def usable(self, unit: tuple[str, ...]) -> bool:
        """Whether merges may use `unit`: in scope, and completing it touches nothing outside.

        One leading space is allowed, as word-initial tokens carry it.
        """
        raw = b"".join(map(token_bytes, unit))
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            return False
        letters = text.removeprefix(" ")
        if len(unit) == 1:
            return text == " " or self.scope.holds(letters)
        if len(letters) != 1 or not self.scope.holds(letters):
            return False
        prefix = b""
        for token in unit[:-1]:
            prefix += token_bytes(token)
            tail = prefix.removeprefix(b" ")
            if tail and len(prefix) != len(token_bytes(unit[0])) and not self.scope.holds_prefix(tail):
                return False
        return True

    def symbols(self, unit: tuple[str, ...]) -> tuple[str, ...]:
        """The private symbols of a unit, without code points yet: its text, or head and tail."""
        whole = "".join(unit)
        return (whole,) if len(unit) == 1 else (f"\0head {whole}", f"\0tail {whole}")

    def encode(self, words: Counter[str]) -> tuple[Counter[tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """Count runs as tuples of symbol names; also the base tokens of each completed character."""
        runs: Counter[tuple[str, ...]] = Counter()
        pieces: dict[str, tuple[str, ...]] = {}
        for (_, count), spelled in zip(words.items(), self.spell(words), strict=True):
            for run in spelled:
                names: list[str] = []
                for unit in run:
                    names.extend(self.symbols(unit))
                    if len(unit) > 1:
                        pieces["".join(unit)] = unit
                if len(names) > 1:
                    runs[tuple(names)] += count
        self.pieces = pieces
        return runs, pieces

    def expand(self, merges: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Turn learned merges into merges of byte-level tokens; completing a character may take several."""
        for left, right in merges:
            if left.startswith("\0head "):
                unit = self.pieces[left.removeprefix("\0head ")]
                so_far = unit[0]
                for token in unit[1:]:
                    yield so_far, token
                    so_far += token
            else:
                yield left, right


def learn(units: Units, words: Counter[str], new_tokens: int, *, min_frequency: int) -> list[tuple[str, str]]:
    """Learn merges over the units of `words` with the Rust trainer; in order, as pairs of symbol names.

    More are learned than asked for, since some are dropped later (too long, or sharing a token).
    """
    from tokenizers import Tokenizer, models, trainers

    runs, _ = units.encode(words)
    names = sorted(
        {name for run in runs for name in run}, key=lambda name: (not name.startswith("\0head "), name)
    )
    code = {name: chr(FIRST_SYMBOL + i) for i, name in enumerate(names)}
    back = {symbol: name for name, symbol in code.items()}
    tokenizer = Tokenizer(models.BPE())
    wanted = len(names) + new_tokens + max(200, new_tokens // 2)
    trainer = trainers.BpeTrainer(vocab_size=wanted, min_frequency=min_frequency, show_progress=False)

    def feed() -> Iterator[list[str]]:
        batch: list[str] = []
        for run, count in runs.items():
            batch.extend(["".join(code[name] for name in run)] * count)
            if len(batch) >= 10_000:
                yield batch
                batch = []
        yield batch

    tokenizer.train_from_iterator(feed(), trainer)
    import json

    learned = json.loads(tokenizer.to_str())["model"]["merges"]

    def spell(symbols: str) -> str:
        parts = [back[symbol] for symbol in symbols]
        if len(parts) == 1:
            return parts[0]
        return "".join(part.removeprefix("\0head ") for part in parts if not part.startswith("\0tail "))

    merges = []
    for merge in learned:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        merges.append((spell(left), spell(right)))
    return merges


def append(
    data: dict[str, Any],
    extension: Extension,
    merges: Iterable[tuple[str, str]],
    new_tokens: int,
    max_token_characters: int,
) -> None:
    """Append merges to a tokenizer.json until it has `new_tokens` more tokens; fills `extension`.

    A merge is kept when both parts exist; a result that is already in the vocabulary gets no second id.
    """
    vocab: dict[str, int] = data["model"]["vocab"]
    known = {tuple(merge) for merge in data["model"]["merges"]}
    for left, right in merges:
        result = left + right
        if left not in vocab or right not in vocab or (left, right) in known:
            continue
        if len(token_bytes(result).decode("utf-8", "ignore")) > max_token_characters:
            continue
        if result not in vocab:
            if len(extension.tokens) == new_tokens:
                break
            vocab[result] = extension.first_id + len(extension.tokens)
            extension.tokens.append(result)
        known.add((left, right))
        extension.merges.append((left, right))
        data["model"]["merges"].append([left, right])
