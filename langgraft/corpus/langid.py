"""Which language is a text in, and is it the one it is said to be?

Script first, then the model, then rules for languages that models mix up (`langid_rules`). `identify` answers the
open question with a score; `Identifier` checks texts against one language and drops only clear contradictions: it
is there to catch files in the wrong language and stray foreign text, not to judge a sentence of four words.
"""

import functools
import re
from typing import NamedTuple

import regex

from langgraft.corpus.langid_model import ALL, CANDIDATES, LanguageModel, load_model
from langgraft.corpus.langid_rules import (
    LETTERS,
    MIN_HITS,
    WORDS,
    chinese_markers,
    japanese_forms,
    leading,
    relative_hits,
    romanised,
)
from langgraft.text import language, languages, only_script, script_shares

MIN_SCRIPT_SHARE = 0.5
# Less will do where the model takes the foreign letters for names in a text of this language.
MIN_SHARE_AMONG_NAMES = 0.25
MIN_CONFIDENCE = 0.8
# Against a close relative, which the model easily mixes up, more certainty is asked for, and more text or so many
# words that only the relative has.
RELATIVE_CONFIDENCE, RELATIVE_LETTERS, CLEAR_HITS = 0.95, 60, 4
# Fewer letters than this say too little; Han, Hangul and kana letters say about as much as three others.
MIN_LETTERS = 24
MAX_CHARACTERS = 1000
# Han text with more kana than this is Japanese, whatever the model says.
KANA_SHARE = 0.15
# The score of Chinese without a marker of either side, and of text whose Latin letters hide its language.
NEUTRAL_SCORE = 0.5

# Languages the model mixes up: see RELATIVE_CONFIDENCE.
_RELATIVES = tuple(
    frozenset(group.split())
    for group in (
        "hi mr ne bho mai sa new dty gom hif",
        "fa mzn lrc glk azb ckb tg",
        "ur pnb sd ks",
        "ps fa ur",
        "ku ckb diq",
        "ar arz ary",
        "zh yue wuu",
        "id ms jv su min ace",
        "hr bs sr sh sl",
        "cs sk",
        "nb nn da sv",
        "es gl ca pt ast an oc mwl ia",
        "it scn nap lmo vec pms sc co eml",
        "ru uk be bg mk rue sr",
        "kk ky tt ba uz krc",
        "tr az tk gag",
        "tl ceb war ilo pam bcl",
        "de als bar nds lb",
        "nl af li fy vls",
        "as bn bpy",
        "fi et vep",
        "bo dz",
        "he yi",
        "en sco",
        "ga gd gv",
        "mn bxr xal",
    )
)


class Guess(NamedTuple):
    """A language code ("" for none, "hi-Latn" for Hindi in Latin letters), its score from 0 to 1, its script."""

    language: str
    score: float
    script: str


class Verdict(NamedTuple):
    """Whether to keep a text, and why; `language` and `score` are what it looks like.

    Reasons to drop: "script", "language", "romanised", "written_chinese", "cantonese". To keep: "ok", "neutral"
    (Chinese that could be either), "short" (judged by script alone).
    """

    keep: bool
    reason: str
    language: str = ""
    score: float = 0.0


@functools.cache
def _only_language() -> dict[str, str]:
    """Script -> its language, for scripts that one language of the table writes."""
    owners: dict[str, list[str]] = {}
    for known in languages().values():
        for script in known.scripts:
            owners.setdefault(script, []).append(known.code)
    return {script: codes[0] for script, codes in owners.items() if len(codes) == 1}


@functools.lru_cache(maxsize=1 << 12)
def _writes(code: str, script: str) -> bool:
    """Whether the language writes the script; a language outside the table may write any."""
    if code.endswith("-Latn"):
        return script == "Latin"
    return code not in languages() or script in languages()[code].scripts


def identify(text: str, model: LanguageModel | None = None) -> Guess:
    """The language of `text` by script, model and rules; language "" where there are no letters to tell.

    Only the first thousand characters are read. Without `model`, lid.176, and scripts that one language writes
    are that language without asking it.
    """
    sample = prose(text[:MAX_CHARACTERS])
    return _identify(sample, letter_shares(sample), model)


_NAMES = r"[A-Za-z0-9_$]+(?:[./_:=][A-Za-z0-9_$]+)+(?:\(\))?|\b[A-Za-z]\w*\(\)"
_NOT_PROSE = regex.compile(rf"https?://\S+|{_NAMES}")
# Tried apart: in a text without spaces every place could be where a mail address begins.
_NOT_PROSE_NOR_MAIL = regex.compile(rf"https?://\S+|\S+@\S+\.\S+|{_NAMES}")
_SIGNS = "./_:=(@"  # one is in every address and name
_ASCII_WORD = re.compile(r"[A-Za-z0-9_$@]")
_LATIN_WORDS = regex.compile(r"[\p{Latin}][\p{Latin}\p{M}'’]*")
_LETTER = regex.compile(r"\p{L}")
_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")


def prose(text: str) -> str:
    """`text` without addresses, file names and identifiers, which are in no language; all of it if nothing is left."""
    if not any(sign in text for sign in _SIGNS) or not _ASCII_WORD.search(text):
        return text
    rest = (_NOT_PROSE_NOR_MAIL if "@" in text else _NOT_PROSE).sub(" ", text)
    return rest if _LETTER.search(rest) else text


def letter_shares(text: str) -> dict[str, float]:
    """`script_shares` by what letters say: Han, kana and Hangul three times as much, Latin half, largest first.

    Names, commands and units in Latin letters stand in text of every script, and not the other way round.
    """
    shares = script_shares(text)
    if len(shares) < 2:
        return shares
    said = {script: share * _SAYS.get(script, 1.0) for script, share in shares.items()}
    total = sum(said.values())
    return {script: n / total for script, n in sorted(said.items(), key=lambda item: -item[1])}


_SAYS = {"Han": 3.0, "Hiragana": 3.0, "Katakana": 3.0, "Hangul": 3.0, "Latin": 0.5}


def weight(text: str) -> int:
    """Number of letters in the first thousand characters; a Han, Hangul or kana letter counts as three."""
    letters = len(_LETTER.findall(text[:MAX_CHARACTERS]))
    return letters + 2 * len(_DENSE.findall(text[:MAX_CHARACTERS]))


def _identify(sample: str, shares: dict[str, float], model: LanguageModel | None) -> Guess:
    kana = shares.get("Hiragana", 0.0) + shares.get("Katakana", 0.0)
    han = shares.get("Han", 0.0)
    if not shares:
        return Guess("", 0.0, "")
    script = next(iter(shares))
    if han + kana >= shares[script]:
        return _identify_han(sample, han, kana)
    if model is None and script in _only_language():
        return Guess(_only_language()[script], shares[script], script)
    asked = model or load_model()
    if script == "Latin" and len(shares) > 1 and not _latin_prose(sample, asked):
        rest = _LATIN_WORDS.sub(" ", sample)
        return _identify(rest, letter_shares(rest), model)
    if script == "Latin" and (code := romanised(sample)):
        best = asked.candidates(sample)[0]
        if best[1] < MIN_CONFIDENCE or best[0] == code:
            return Guess(code, MIN_CONFIDENCE, script)
    hits = relative_hits(sample, script) if script in WORDS else None
    if hits and (code := leading(hits)):
        return Guess(code, hits[code] / hits.total(), script)
    own = sample if script == "Latin" else _LATIN_WORDS.sub(" ", sample)
    for k in (CANDIDATES, ALL):
        for code, p in asked.candidates(own, k):
            if _writes(code, script):
                return Guess(code, p, script)
    return Guess("", 0.0, script)


def _latin_prose(sample: str, model: LanguageModel) -> bool:
    """Whether the Latin letters in text of two scripts are more than names and commands in a text of the other."""
    found = model.candidates(sample)
    return not found or _writes(found[0][0], "Latin")


def _identify_han(sample: str, han: float, kana: float) -> Guess:
    """Japanese by kana (unless Cantonese quotes it) or forms of its own, else Cantonese or written Chinese by markers.

    The model only adds noise here: short Chinese sentences come out as Japanese, half of Cantonese as Chinese.
    """
    cantonese, written = chinese_markers(sample)
    quoted = cantonese >= MIN_HITS and kana < han
    if kana > KANA_SHARE * (han + kana) and not quoted:
        return Guess("ja", 1.0, "Hiragana")
    if not cantonese + written:
        return Guess("ja", MIN_CONFIDENCE, "Han") if japanese_forms(sample) else Guess("zh", NEUTRAL_SCORE, "Han")
    if cantonese >= written:
        return Guess("yue", cantonese / (cantonese + written), "Han")
    return Guess("zh", written / (cantonese + written), "Han")


class Identifier:
    """Checks texts against one language.

    `model` is the path of a fastText file such as GlotLID's; "" takes lid.176.

    Raises:
        InputError: the language is unknown.
        CorpusError: the model's file is missing or no fastText classifier.
    """

    def __init__(self, code: str, model: str = "") -> None:
        self.language = language(code)
        self.model = load_model(model)
        # lid.176 has one label a script here, so asking it is in vain; a file of the user's may know better.
        self._asked = self.model if model else None
        code = self.language.code
        self._script = self._only_script(bool(model))
        ruled = any(code in rows for table in (WORDS, LETTERS) for rows in table.values())
        self.known = ruled or code in self.model.languages or code in _only_language().values()
        self.relatives = frozenset[str]().union(*(group for group in _RELATIVES if code in group)) - {code}

    def _only_script(self, has_own_model: bool) -> str:
        """The script that no other language writes and this one alone, whose letters leave nothing to ask; or ""."""
        script = self.language.scripts[0]
        own = _only_language().get(script) == self.language.code and len(self.language.scripts) == 1
        return script if own and not has_own_model and script not in _SAYS else ""

    def certain(self, text: str) -> bool:
        """Whether `check` says at once that a text is "ok": all its letters are of a script of this language alone."""
        return bool(self._script) and only_script(text[:MAX_CHARACTERS], self._script)

    def check(self, text: str) -> Verdict:
        """Whether to keep `text`, and why. Texts without letters are dropped for their script."""
        if self.certain(text):
            return Verdict(True, "ok", self.language.code, 1.0)
        sample = prose(text[:MAX_CHARACTERS])
        shares = self.shares(sample)
        guess = _identify(sample, shares, self._asked)
        expected = MIN_SHARE_AMONG_NAMES if guess.language == self.language.code else MIN_SCRIPT_SHARE
        if self.own_share(shares) < expected:
            reason = "romanised" if guess.language.endswith("-Latn") else "script"
            return Verdict(False, reason, guess.language, guess.score)
        return Verdict(*self._judge(sample, guess), guess.language, guess.score)

    def shares(self, sample: str) -> dict[str, float]:
        """Shares of scripts as they count for this language: a Latin letter counts in full where it writes Latin."""
        if only_script(sample, self.language.scripts[0]):
            return {self.language.scripts[0]: 1.0}
        return script_shares(sample) if "Latin" in self.language.scripts else letter_shares(sample)

    def own_share(self, shares: dict[str, float]) -> float:
        """How much of `script_shares` is in the language's scripts."""
        return sum(shares.get(script, 0.0) for script in self.language.scripts)

    def _judge(self, sample: str, guess: Guess) -> tuple[bool, str]:
        code = self.language.code
        if code in ("yue", "zh"):
            return self._chinese(sample, guess)
        if guess.language == code:
            return True, "ok"
        letters = weight(sample)
        if not self.known or letters < MIN_LETTERS:
            return True, "short"
        if guess.language.endswith("-Latn"):
            return False, "romanised"
        related = guess.language in self.relatives
        clear = not related or relative_hits(sample, guess.script)[guess.language] >= CLEAR_HITS
        if (clear or letters >= RELATIVE_LETTERS) and guess.score >= (
            RELATIVE_CONFIDENCE if related else MIN_CONFIDENCE
        ):
            return False, "language"
        return True, "ok"

    def _chinese(self, sample: str, guess: Guess) -> tuple[bool, str]:
        """Cantonese against written Chinese, by markers; what has none of either is neutral and stays."""
        if guess.language == "ja" and (guess.script != "Han" or japanese_forms(sample) > 1):
            return False, "language"
        cantonese, written = chinese_markers(sample)
        if self.language.code == "yue":
            # Cantonese quotes and borrows written Chinese, so a few markers do not outweigh its own.
            if written > 2 * cantonese:
                return False, "written_chinese"
            return True, "ok" if cantonese else "neutral"
        if cantonese > 2 * written:
            return False, "cantonese"
        return True, "ok" if written else "neutral"
