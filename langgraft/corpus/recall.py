"""Ids of a batch of texts, tokenising what recurs once.

Most words of a text were in the text before. Where a tokenizer provably cuts before a space that follows a word, the
text can be cut there first, and the ids of a piece that was seen before come from a table. The ids are the same.
"""

import json
import os
import re
from array import array
from typing import TYPE_CHECKING, Any

from langgraft.rebuilt import GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

KNOWN = 200_000  # pieces kept, some 60 MB; above it the table starts anew
LONGEST = 64  # characters of a piece that is kept
WORDS = 12  # characters between spaces, on average, above which pieces are phrases, which seldom recur (Thai, Chinese)
WORTH = 0.5  # share of a batch's characters that may be new; above it, cutting costs what it saves
PAUSE = 63  # batches encoded as they are after one that was not worth it
THREADS = 8  # with more, `tokenizers` by itself is faster than looking up, which one thread does

# Python's `\s` has every space of the tokenizers' patterns, and a few more.
_PIECE = re.compile(r" *[^ ]+(?:(?<=\s) [^ ]*)*| +")
_PATTERNS = {GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN}


class Recall:
    """Ids of texts, without special tokens, of a tokenizer that neither cuts nor pads."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer
        self.recalls = _threads() <= THREADS and cuts_before_spaces(tokenizer)
        self.known: dict[str, bytes] = {}
        self.pause = 0

    def __call__(self, texts: list[str]) -> list[bytes]:
        """The ids of each text, as uint32 in the machine's byte order."""
        if not self.recalls or self.pause or not _has_words(texts):
            self.pause = max(self.pause - 1, 0)
            return self._encoded(texts)
        pieces = [_PIECE.findall(text) for text in texts]
        known = self.known
        new = [piece for piece in dict.fromkeys(piece for some in pieces for piece in some) if piece not in known]
        known.update(zip(new, self._encoded(new), strict=True))
        found = [b"".join(map(known.__getitem__, some)) for some in pieces]
        if sum(map(len, new)) > WORTH * sum(map(len, texts)):
            self.pause, self.known = PAUSE, {}
        elif len(known) > KNOWN:
            self.known = {}
        else:
            for piece in new:
                if len(piece) > LONGEST:
                    del known[piece]
        return found

    def _encoded(self, texts: list[str]) -> list[bytes]:
        # `fast` leaves out where in the text each token stands; the ids are the same.
        found = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [array("I", encoding.ids).tobytes() for encoding in found]


def _has_words(texts: list[str]) -> bool:
    return sum(map(len, texts)) <= WORDS * sum(text.count(" ") + 1 for text in texts)


def cuts_before_spaces(tokenizer: "Tokenizer") -> bool:
    r"""Whether a text can be cut before any U+0020 that follows a non-space, and its parts be encoded one by one.

    True only for pre-tokenizers known to allow it: no match of their pattern holds a non-space and then a space,
    and what they look ahead for is one non-space (`(?!\S)`), which the cut does not change. A tokenizer that is
    not known here is encoded as it is.
    """
    # Parts are asked one by one: the whole document, with its vocabulary and merges, takes as long as 0.3 MB of text.
    model, normalizer, outer = tokenizer.model, _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    steps = outer["pretokenizers"] if outer.get("type") == "Sequence" else [outer]
    steps = [step for step in steps if step.get("type") != "Digits"]
    return (
        type(model).__name__ == "BPE"
        and not model.dropout
        # No composed character holds a space, so NFC does the same to the parts.
        and normalizer.get("type", "NFC") == "NFC"
        and not any(map(_meets_spaces, tokenizer.get_added_tokens_decoder().values()))
        and bool(steps)
        and _splits_words(steps[0])  # before `ByteLevel` makes letters of spaces
        and all(_splits_words(step) or step.get("type") == "ByteLevel" for step in steps)
        and not any(step.get("add_prefix_space") for step in steps)
    )


def _state(part: Any) -> dict[str, Any]:
    """A normalizer or pre-tokenizer as in a tokenizer.json; empty for none."""
    return dict(json.loads(part.__getstate__())) if part is not None else {}


def _meets_spaces(token: "AddedToken") -> bool:
    """Whether an added token may hold a space, take those around it, or ask for them."""
    return " " in token.content or token.lstrip or token.rstrip or token.single_word


def _splits_words(step: dict[str, Any]) -> bool:
    if step.get("type") == "ByteLevel":
        return bool(step.get("use_regex"))
    if step.get("type") != "Split" or step.get("behavior") != "Isolated" or step.get("invert"):
        return False
    pattern: str = step["pattern"].get("Regex", "")
    # Marks that may stand wherever letters may change nothing here (`tokenizer.pretokenizer.mark_aware`).
    return pattern.replace(r"[\p{L}\p{M}]", r"\p{L}").replace(r"\p{L}\p{M}", r"\p{L}") in _PATTERNS


def _threads() -> int:
    """Threads that `tokenizers` uses in this process."""
    if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("false", "0", "off", "no", "n", "f"):
        return 1
    given = os.environ.get("RAYON_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else os.cpu_count() or 1
