"""Languages, scripts, and the units text is counted in. Imports nothing heavy.

Script names are Unicode script property values as the `regex` package knows them ("Han", "Devanagari").
"""

import difflib
import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from langgraft.errors import InputError

# Scripts of living languages. A character of any other script is "Unknown".
_SCRIPT_NAMES = """
Common Inherited Latin Han Hiragana Katakana Hangul Bopomofo Cyrillic Greek Arabic Hebrew Syriac
Thaana Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu Kannada Malayalam Sinhala Thai Lao
Tibetan Myanmar Khmer Mongolian Armenian Georgian Ethiopic Cherokee Canadian_Aboriginal Tifinagh Nko
Vai Adlam Ol_Chiki Meetei_Mayek Javanese Balinese Sundanese Buginese Cham Tai_Le New_Tai_Lue
Tai_Tham Tai_Viet Lisu Miao Yi Lepcha Limbu Syloti_Nagri Tagalog Hanunoo Buhid Tagbanwa Batak Rejang
Kayah_Li Saurashtra Bamum Mandaic Samaritan Coptic Braille Chakma Newa Osage Hanifi_Rohingya Wancho
Nyiakeng_Puachue_Hmong Pahawh_Hmong Warang_Citi Mro Tirhuta Sharada Takri Modi
"""
SCRIPTS = tuple(_SCRIPT_NAMES.split())

# Scripts that write vowel signs, tones or points as combining marks inside words.
_MARK_SCRIPT_NAMES = """
Arabic Hebrew Syriac Thaana Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu Kannada
Malayalam Sinhala Thai Lao Tibetan Myanmar Khmer Nko Adlam Meetei_Mayek Javanese Balinese Mongolian
"""
MARK_SCRIPTS = frozenset(_MARK_SCRIPT_NAMES.split())


@dataclass(frozen=True)
class Language:
    """What the rest of the package needs to know about a language.

    `marks`: combining marks occur inside words, so a letters-only word pattern cuts them.
    `spaces`: spaces stand between words (or, in Vietnamese, between syllables).
    """

    code: str
    name: str
    native_name: str
    scripts: tuple[str, ...]
    spaces: bool
    marks: bool


# code, other codes, English name, own name, scripts (the usual one first).
_ROWS = """
af  afr       Afrikaans        Afrikaans         Latin
am  amh       Amharic          አማርኛ              Ethiopic
ar  ara,arb   Arabic           العربية           Arabic
as  asm       Assamese         অসমীয়া            Bengali
az  aze,azj   Azerbaijani      azərbaycanca      Latin
be  bel       Belarusian       беларуская        Cyrillic
bg  bul       Bulgarian        български         Cyrillic
bho -         Bhojpuri         भोजपुरी             Devanagari
bn  ben       Bengali          বাংলা              Bengali
bo  bod,tib   Tibetan          བོད་སྐད་             Tibetan
bs  bos       Bosnian          bosanski          Latin,Cyrillic
ca  cat       Catalan          català            Latin
ceb -         Cebuano          Cebuano           Latin
ckb -         Central_Kurdish  کوردی             Arabic
cs  ces,cze   Czech            čeština           Latin
cy  cym,wel   Welsh            Cymraeg           Latin
da  dan       Danish           dansk             Latin
de  deu,ger   German           Deutsch           Latin
dv  div       Dhivehi          ދިވެހި              Thaana
dz  dzo       Dzongkha         རྫོང་ཁ              Tibetan
ee  ewe       Ewe              Eʋegbe            Latin
el  ell,gre   Greek            Ελληνικά          Greek
en  eng       English          English           Latin
eo  epo       Esperanto        Esperanto         Latin
es  spa       Spanish          español           Latin
et  est,ekk   Estonian         eesti             Latin
eu  eus,baq   Basque           euskara           Latin
fa  fas,per,pes Persian        فارسی             Arabic
fi  fin       Finnish          suomi             Latin
fo  fao       Faroese          føroyskt          Latin
fr  fra,fre   French           français          Latin
ga  gle       Irish            Gaeilge           Latin
gl  glg       Galician         galego            Latin
gn  grn       Guarani          Avañe'ẽ           Latin
gu  guj       Gujarati         ગુજરાતી             Gujarati
ha  hau       Hausa            Hausa             Latin
haw -         Hawaiian         ʻŌlelo_Hawaiʻi    Latin
he  heb,iw    Hebrew           עברית             Hebrew
hi  hin       Hindi            हिन्दी              Devanagari
hr  hrv       Croatian         hrvatski          Latin
ht  hat       Haitian_Creole   Kreyòl_ayisyen    Latin
hu  hun       Hungarian        magyar            Latin
hy  hye,arm   Armenian         հայերեն           Armenian
id  ind       Indonesian       Bahasa_Indonesia  Latin
ig  ibo       Igbo             Igbo              Latin
is  isl,ice   Icelandic        íslenska          Latin
it  ita       Italian          italiano          Latin
ja  jpn       Japanese         日本語            Han,Hiragana,Katakana
jv  jav       Javanese         Basa_Jawa         Latin,Javanese
ka  kat,geo   Georgian         ქართული           Georgian
kk  kaz       Kazakh           қазақша           Cyrillic
km  khm       Khmer            ភាសាខ្មែរ            Khmer
kn  kan       Kannada          ಕನ್ನಡ              Kannada
ko  kor       Korean           한국어            Hangul
ks  kas       Kashmiri         کٲشُر              Arabic,Devanagari
ku  kur,kmr   Kurdish          kurdî             Latin
ky  kir       Kyrgyz           кыргызча          Cyrillic
la  lat       Latin            Latina            Latin
lb  ltz       Luxembourgish    Lëtzebuergesch    Latin
lg  lug       Ganda            Luganda           Latin
ln  lin       Lingala          lingála           Latin
lo  lao       Lao              ລາວ               Lao
lt  lit       Lithuanian       lietuvių          Latin
lv  lav,lvs   Latvian          latviešu          Latin
mai -         Maithili         मैथिली              Devanagari
mg  mlg,plt   Malagasy         Malagasy          Latin
mi  mri,mao   Māori            te_reo_Māori      Latin
mk  mkd,mac   Macedonian       македонски        Cyrillic
ml  mal       Malayalam        മലയാളം            Malayalam
mn  mon,khk   Mongolian        монгол            Cyrillic
mni -         Manipuri         মৈতৈলোন্             Bengali,Meetei_Mayek
mr  mar       Marathi          मराठी              Devanagari
ms  msa,may,zsm Malay          Bahasa_Melayu     Latin
mt  mlt       Maltese          Malti             Latin
my  mya,bur   Burmese          မြန်မာဘာသာ          Myanmar
nb  nob,no,nor Norwegian       norsk_bokmål      Latin
ne  nep,npi   Nepali           नेपाली              Devanagari
nl  nld,dut   Dutch            Nederlands        Latin
nn  nno       Norwegian_Nynorsk norsk_nynorsk    Latin
ny  nya       Chichewa         Chichewa          Latin
oc  oci       Occitan          occitan           Latin
om  orm,gaz   Oromo            Afaan_Oromoo      Latin
or  ori,ory   Odia             ଓଡ଼ିଆ               Oriya
pa  pan       Punjabi          ਪੰਜਾਬੀ              Gurmukhi
pl  pol       Polish           polski            Latin
ps  pus,pbt   Pashto           پښتو              Arabic
pt  por       Portuguese       português         Latin
qu  que,quy   Quechua          Runa_Simi         Latin
ro  ron,rum   Romanian         română            Latin
ru  rus       Russian          русский           Cyrillic
rw  kin       Kinyarwanda      Ikinyarwanda      Latin
sa  san       Sanskrit         संस्कृतम्            Devanagari
sat -         Santali          ᱥᱟᱱᱛᱟᱲᱤ           Ol_Chiki
sd  snd       Sindhi           سنڌي              Arabic
si  sin       Sinhala          සිංහල              Sinhala
sk  slk,slo   Slovak           slovenčina        Latin
sl  slv       Slovenian        slovenščina       Latin
sm  smo       Samoan           Gagana_Samoa      Latin
sn  sna       Shona            chiShona          Latin
so  som       Somali           Soomaali          Latin
sq  sqi,alb   Albanian         shqip             Latin
sr  srp       Serbian          српски            Cyrillic,Latin
st  sot       Southern_Sotho   Sesotho           Latin
su  sun       Sundanese        Basa_Sunda        Latin
sv  swe       Swedish          svenska           Latin
sw  swa,swh   Swahili          Kiswahili         Latin
ta  tam       Tamil            தமிழ்              Tamil
te  tel       Telugu           తెలుగు             Telugu
tg  tgk       Tajik            тоҷикӣ            Cyrillic
th  tha       Thai             ไทย               Thai
ti  tir       Tigrinya         ትግርኛ              Ethiopic
tk  tuk       Turkmen          türkmençe         Latin
tl  tgl,fil   Tagalog          Tagalog           Latin
tn  tsn       Tswana           Setswana          Latin
tr  tur       Turkish          Türkçe            Latin
ts  tso       Tsonga           Xitsonga          Latin
tt  tat       Tatar            татарча           Cyrillic
tw  twi,ak,aka Twi             Twi               Latin
ug  uig       Uyghur           ئۇيغۇرچە          Arabic
uk  ukr       Ukrainian        українська        Cyrillic
ur  urd       Urdu             اردو              Arabic
uz  uzb,uzn   Uzbek            oʻzbekcha         Latin,Cyrillic
vi  vie       Vietnamese       Tiếng_Việt        Latin
wo  wol       Wolof            Wolof             Latin
wuu -         Wu_Chinese       吴语              Han
xh  xho       Xhosa            isiXhosa          Latin
yi  yid,ydd   Yiddish          ייִדיש             Hebrew
yo  yor       Yoruba           Yorùbá            Latin
yue -         Cantonese        粵語              Han
zh  zho,chi,cmn Chinese        中文              Han
zu  zul       Zulu             isiZulu           Latin
"""

_NO_SPACES = frozenset(("bo", "dz", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"))
# Latin letters that have no composed form keep their marks apart even after NFC (Yoruba ọ́, Igbo ọ̀, Ewe ɛ́).
_MARKS_IN_LATIN = frozenset(("ee", "ig", "ln", "yo"))


@functools.cache
def languages() -> dict[str, Language]:
    """Every known language by its code, in the order of the codes."""
    table = {}
    for line in _ROWS.strip().splitlines():
        code, _, name, native, scripts = line.split()
        names = tuple(scripts.split(","))
        marks = code in _MARKS_IN_LATIN or any(script in MARK_SCRIPTS for script in names)
        title = name.replace("_", " ")
        table[code] = Language(code, title, native.replace("_", " "), names, code not in _NO_SPACES, marks)
    return table


@functools.cache
def _aliases() -> dict[str, str]:
    found = {}
    for line in _ROWS.strip().splitlines():
        code, others, *_ = line.split()
        found.update(dict.fromkeys((code, *(others.split(",") if others != "-" else ())), code))
    return found


def _bare(code: str) -> str:
    return code.replace("_", "-").split("-")[0].strip().lower()


def find_language(code: str) -> Language | None:
    """As `language`, or None for a code that is not in the table."""
    known = _aliases().get(_bare(code))
    return languages()[known] if known else None


@functools.cache
def language(code: str) -> Language:
    """Look a language up by ISO 639-1 or 639-3 code; a region or script subtag ("pt-BR") is ignored.

    Raises:
        InputError: the code is not in the table; close codes and names are suggested.
    """
    aliases = _aliases()
    bare = _bare(code)
    if known := find_language(code):
        return known
    names = {known.name.lower(): known.code for known in languages().values()}
    wanted = code.strip().lower()
    by_name = [names[name] for name in difflib.get_close_matches(wanted, names, n=3, cutoff=0.7)]
    by_code = [aliases[alias] for alias in difflib.get_close_matches(bare, aliases, n=3, cutoff=0.6)]
    close = list(dict.fromkeys(by_name + by_code))[:3]
    hint = ", ".join(f"{c} ({languages()[c].name})" for c in close)
    raise InputError(
        f"unknown language {code!r}: "
        + (f"did you mean {hint}?" if hint else "use an ISO 639 code such as hi, th, yue or sw")
    )


@functools.cache
def _script_pattern() -> regex.Pattern[str]:
    return regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS))


@functools.lru_cache(maxsize=1 << 17)
def script_of(char: str) -> str:
    """The script of one character; "Common" and "Inherited" are kept, unlisted ones are "Unknown"."""
    match = _script_pattern().match(char)
    return str(match.lastgroup) if match else "Unknown"


_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


@functools.cache
def bmp_class(pattern: str) -> str:
    """The characters up to U+FFFF that a `regex` class matches, as the inside of a class for `re`."""
    spans: list[list[int]] = []
    for point in map(ord, regex.findall(pattern, "".join(map(chr, range(0x10000))))):
        if spans and spans[-1][1] == point - 1:
            spans[-1][1] = point
        else:
            spans.append([point, point])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in spans)


class Runs:
    """Runs of characters of a `regex` class such as `[\\p{L}\\p{M}]`.

    `re` knows no Unicode properties, but finds the members of a class several times faster: it does the work
    wherever no character is above U+FFFF.
    """

    def __init__(self, pattern: str) -> None:
        self._class, self._any = pattern, regex.compile(f"{pattern}+")

    @functools.cached_property
    def _usual(self) -> re.Pattern[str]:
        return re.compile(f"[{bmp_class(self._class)}]+")

    @functools.cached_property
    def _perhaps(self) -> re.Pattern[str]:
        return re.compile(f"[{bmp_class(self._class)}\U00010000-\U0010ffff]")

    def absent(self, text: str) -> bool:
        """Whether `text` has no such character, quickly; False may also mean: not told so quickly."""
        return self._perhaps.search(text) is None

    def _of(self, text: str) -> "re.Pattern[str] | regex.Pattern[str]":
        return self._any if _ASTRAL.search(text) else self._usual

    def sub(self, by: str, text: str) -> str:
        """`text` with `by` for each run."""
        return str(self._of(text).sub(by, text))

    def findall(self, text: str) -> list[str]:
        """The runs in `text`."""
        return list(self._of(text).findall(text))

    def count(self, text: str) -> int:
        """Number of characters of the class in `text`."""
        return len(text) - len(self.sub("", text))


_LETTER = regex.compile(r"[\p{L}\p{M}]")
_NEUTRAL = r"[^\p{L}\p{M}]|[\p{Script=Common}\p{Script=Inherited}]"


class _Scripts(dict[str, str]):
    """The script of a letter or mark, "" for anything else and for what belongs to no script of its own."""

    def __missing__(self, char: str) -> str:
        script = script_of(char) if _LETTER.match(char) else ""
        self[char] = "" if script in ("Common", "Inherited") else script
        return self[char]


_scripts = _Scripts()


@functools.cache
def _alone(script: str) -> re.Pattern[str]:
    """Matches what has letters or marks of `script` and of no other; above U+FFFF it finds none."""
    neutral, own = _neutral(), bmp_class(rf"(?=[\p{{L}}\p{{M}}])\p{{Script={script}}}")
    return re.compile(f"[{neutral}]*[{own}][{neutral}{own}]*")


@functools.cache
def _neutral() -> str:
    return bmp_class(_NEUTRAL)


def only_script(text: str, script: str) -> bool:
    """Whether `script_shares` of `text` is `{script: 1.0}`, quickly; False may also mean: not told so quickly."""
    return _alone(script).fullmatch(text) is not None


def script_shares(text: str) -> dict[str, float]:
    """Share of each script among the letters and marks of `text`, largest first; empty without letters.

    Letters and marks that belong to no script of their own (Common, Inherited) are not counted.
    """
    counts: dict[str, int] = {}
    for char, n in Counter(text).items():
        if script := _scripts[char]:
            counts[script] = counts.get(script, 0) + n
    total = sum(counts.values())
    return {script: n / total for script, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


@functools.cache
def _scripts_pattern(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    for name in scripts:
        if name not in SCRIPTS:
            close = difflib.get_close_matches(name, SCRIPTS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"unknown script {name!r}{hint} (names are those of Unicode, such as Han or Thai)")
    # Script_Extensions puts shared signs such as "ー" and "।" with the scripts that use them.
    own = "".join(rf"\p{{Script_Extensions={name}}}" for name in scripts)
    return regex.compile(rf"\p{{Script=Inherited}}*[{own}][{own}\p{{Script=Inherited}}]*")


def in_scripts(text: str, scripts: Sequence[str]) -> bool:
    """Whether every character of `text` is of one of `scripts`, or a mark or joiner that follows any script.

    At least one character must be of the scripts themselves: text made only of shared marks (such as the
    emoji variation selector) belongs to none. Signs shared by a few scripts, such as the danda, count for
    each of them; spaces, digits and general punctuation count for none.

    Raises:
        InputError: a script name is unknown.
    """
    return _scripts_pattern(tuple(scripts)).fullmatch(text) is not None


def words(text: str, of: Language | str) -> int | None:
    """Number of words between spaces, or None for a language that writes none."""
    known = language(of) if isinstance(of, str) else of
    return len(text.split()) if known.spaces else None


_GRAPHEME = regex.compile(r"\X")


def graphemes(text: str) -> int:
    """Number of user-perceived characters (extended grapheme clusters)."""
    return sum(1 for _ in _GRAPHEME.finditer(text))


def utf8_bytes(text: str) -> int:
    """Number of bytes of `text` in UTF-8 (a lone surrogate counts as three)."""
    return len(text.encode("utf-8", "surrogatepass"))
