"""Wikitext to text: paragraphs, headings, list items and table rows; templates that carry words keep them.

Templates, links and tables are resolved from the inside out with regular expressions, which is several times
faster than building a tree, and never leaves a page half parsed. (`mwparserfromhell`'s `strip_code` drops every
template: "Mumbai () is  from the sea.")
"""

import html
from collections.abc import Callable

import regex

_FILE, _CATEGORY, _MEDIA = "6", "14", "-2"
_TAG_NAMES = """
ref references gallery math timeline score imagemap syntaxhighlight source templatestyles graph hiero inputbox
mapframe maplink section indicator noinclude includeonly chem ce style script
"""
_NO_TEXT_TAGS = "|".join(_TAG_NAMES.split())
# Sections that are lists of links and citations, not text. One left empty is dropped whatever its name.
_APPENDIX_NAMES = """
references, external links, further reading, see also, notes, bibliography, sources, footnotes, citations,
notes and references, gallery, works cited, literature,
參考文獻, 参考文献, 外部連結, 外部链接, 延伸閱讀, 註釋, 參考, 参考, 脚注, 関連項目, 外部リンク, 出面網頁,
सन्दर्भ, संदर्भ, बाहरी कड़ियाँ, इन्हें भी देखें, منابع, پانویس, پیوند به بیرون, جستارهای وابسته,
อ้างอิง, แหล่งข้อมูลอื่น, ดูเพิ่ม, einzelnachweise, weblinks, références, liens externes, referencias,
enlaces externos, примечания, ссылки, литература
"""
_APPENDICES = frozenset(name.strip() for name in _APPENDIX_NAMES.split(","))
_UNITS = {
    "km2": "km²",
    "sqkm": "km²",
    "sqmi": "sq mi",
    "m2": "m²",
    "m3": "m³",
    "C": "°C",
    "F": "°F",
    "K": "K",
}
_RANGE_WORDS = {"to": "to", "-": "–", "–": "–", "and": "and", "by": "by", "x": "×", "or": "or"}


class Template:
    """A template's name and arguments; `positional` are those without a name."""

    def __init__(self, body: str) -> None:
        self.name, *arguments = (part.strip() for part in body.split("|"))
        self.positional: list[str] = []
        self.named: dict[str, str] = {}
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if equals and _KEY.fullmatch(key):
                self.named[key.strip().lower()] = value.strip()
            else:
                self.positional.append(argument)

    def get(self, *keys: str) -> str:
        """The first argument there is of `keys`; "1" is the first positional one."""
        for key in keys:
            if key in self.named:
                return self.named[key]
            if key.isdigit() and len(self.positional) >= int(key):
                return self.positional[int(key) - 1]
        return ""


_KEY = regex.compile(r"[\w][\w .-]{0,40}")
Rule = Callable[[Template], str]


def _argument(number: int) -> Rule:
    return lambda template: template.get(str(number), "text", "quote")


def _last(template: Template) -> str:
    values = [value for value in template.positional if value]
    return values[-1] if len(values) > 1 else ""  # the first is a language or script code


def _convert(template: Template) -> str:
    """`{{convert|10|to|20|km|mi}}` -> "10 to 20 km": the figure as written, without the conversion."""
    parts: list[str] = []
    for value in template.positional:
        if regex.fullmatch(r"[\d.,+\-−/⁄ ]+", value) and value not in _RANGE_WORDS:
            parts.append(value)
        elif value in _RANGE_WORDS and parts:
            parts.append(_RANGE_WORDS[value])
        else:
            return " ".join([*parts, _UNITS.get(value, value)])
    return " ".join(parts)


def _fraction(template: Template) -> str:
    values = template.positional
    return f"{values[0]} {values[1]}/{values[2]}" if len(values) == 3 else "/".join(values)


def _nihongo(template: Template) -> str:
    """`{{nihongo|Tokyo|東京|Tōkyō}}` -> "Tokyo (東京 Tōkyō)"."""
    english, *others = [*template.positional, ""]
    inside = " ".join(part for part in others[:2] if part)
    return f"{english} ({inside})" if english and inside else english or inside


def _items(template: Template) -> str:
    return "".join(f"\n- {item.lstrip('*# ')}" for item in template.positional if item.strip("* \n")) + "\n"


def _inline_items(template: Template) -> str:
    return ", ".join(item.lstrip("*# ").replace("\n* ", ", ") for item in template.positional if item)


def _date(template: Template) -> str:
    return "-".join(value.zfill(2) for value in template.positional[:3] if value.isdigit())


def _constant(text: str) -> Rule:
    return lambda _template: text


_one, _two = _argument(1), _argument(2)
# Template name -> its text. Every other template is dropped.
TEMPLATES: dict[str, Rule] = {
    **dict.fromkeys(("lang", "langr", "tooltip-text", "native name", "legend", "nuclide2", "simplenuclide2"), _two),
    **dict.fromkeys(("transl", "transliteration", "translit", "script", "wikt-lang", "langwithname"), _last),
    **dict.fromkeys(("convert", "cvt", "conv"), _convert),
    **dict.fromkeys(("nowrap", "nobr", "nobreak", "small", "smaller", "big", "larger", "unicode", "iast"), _one),
    **dict.fromkeys(("abbr", "tooltip", "ill", "interlanguage link", "link-interwiki", "sic", "not a typo"), _one),
    **dict.fromkeys(("quote", "blockquote", "cquote", "quotation", "centered pull quote", "bq", "poem"), _one),
    **dict.fromkeys(("visible anchor", "vanchor", "as written", "proper name", "strong", "em", "font", "math"), _one),
    **dict.fromkeys(("polytonic", "hebrew", "gloss", "linktext", "smallcaps", "keypress", "angbr", "resize"), _one),
    **dict.fromkeys(("sc", "aut", "script/greek", "script/hebrew", "formatnum", "val", "num", "sub", "sup"), _one),
    **dict.fromkeys(("mono", "code", "tt", "overline", "nobold", "longitem", "nts", "ntsh", "noitalic", "bold"), _one),
    **dict.fromkeys(("flag", "flagcountry", "flagu", "flaglist", "increase", "decrease", "steady", "eqm"), _one),
    **dict.fromkeys(("marriage", "uss", "hms", "ss", "ship", "color", "nobreak and", "nq", "talk quote"), _one),
    **dict.fromkeys(("nihongo", "spell-nihongo", "nihongo2", "nihongo3"), _nihongo),
    **dict.fromkeys(("plainlist", "flatlist", "ubl", "unbulleted list", "vunblist", "bulleted list"), _items),
    **dict.fromkeys(("columns-list", "collapsible list", "ordered list", "block indent"), _items),
    **dict.fromkeys(("hlist", "comma separated entries", "csv"), _inline_items),
    **dict.fromkeys(("frac", "sfrac", "fraction"), _fraction),
    **dict.fromkeys(("dts", "date", "start date", "end date", "birth date", "death date"), _date),
    **dict.fromkeys(("birth date and age", "death date and age", "film date", "release date"), _date),
    **dict.fromkeys(("ndash", "spaced ndash", "snd", "spnd", "dash"), _constant(" – ")),
    **dict.fromkeys(("mdash", "mdashb", "spaced mdash", "em dash"), _constant("—")),
    **dict.fromkeys(("nbsp", "space", "thinsp", "spaces"), _constant(" ")),
    **dict.fromkeys(("·", "•", "dot", "middot", "bullet"), _constant(" · ")),
    **dict.fromkeys(("=",), _constant("=")),
    **dict.fromkeys(("!", "pipe"), _constant("\x06")),
    **dict.fromkeys(("okina", "hamza"), _constant("ʻ")),
    **dict.fromkeys(("'", "`"), _constant("'")),
    "'s": _constant("'s"),
    "oldstyledate": lambda template: " ".join(template.positional[:2]),
    "as of": lambda template: "As of " + _one(template),
    "circa": lambda template: "c. " + "–".join(template.positional[:2]),
    "c.": lambda template: "c. " + "–".join(template.positional[:2]),
    "chem": lambda template: "".join(template.positional),
    "pound sterling": _constant("£"),
    "gbp": lambda template: "£" + _one(template),
    "us$": lambda template: "US$" + _one(template),
    "usd": lambda template: "US$" + _one(template),
}

# Stand-ins while the page is taken apart: XML cannot hold these characters.
_HEADING = "\x00"  # heading line, followed by its level
_OPEN, _CLOSE = "\x03", "\x04"  # of a table
_BAR = "\x06"  # a bar that is text
_LEFT, _RIGHT, _CURLY, _UNCURLY = "\x01", "\x02", "\x05", "\x07"  # single brackets and braces
_RESTORE = str.maketrans({_LEFT: "[", _RIGHT: "]", _CURLY: "{", _UNCURLY: "}", _BAR: "|"})
_BEFORE = (
    (regex.compile(r"<!--.*?(?:-->|\Z)", regex.S), ""),
    (regex.compile(rf"<({_NO_TEXT_TAGS})\b[^<>]*?/>", regex.I), ""),
    (regex.compile(rf"<({_NO_TEXT_TAGS})\b[^<>]*>(?:.*?</\1\s*>|[^\n]*)", regex.S | regex.I), ""),
    (regex.compile(r"</?(?:nowiki|onlyinclude)\b[^<>]*>", regex.I), ""),
    (regex.compile(r"__[A-Z]{3,}__"), ""),
    (regex.compile(r"-\{(?:[^{}|]*\|)?(?:[\w-]+:([^{};]*);[^{}]*|([^{}]*))\}-"), r"\1\2"),  # Chinese variants
    (regex.compile(r"\{\{\{[^{}|]*\|?([^{}]*)\}\}\}"), r"\1"),
    (regex.compile(r"\[(?:(?:https?|ftp|irc|news):|mailto:|)//[^\s\[\]<>]*[ \t]*([^\[\]\n]*)\]"), r"\1"),
    (regex.compile(r"(?<![\w/])(?:https?|ftp)://[^\s|\[\]{}<>\"]+"), ""),
    (regex.compile(r"^[ \t:*#]*\{\|", regex.M), _OPEN),
    (regex.compile(r"^[ \t]*\|\}(?!\})", regex.M), _CLOSE),
    (regex.compile(r"(?<!\[)\[(?!\[)"), _LEFT),
    (regex.compile(r"(?<!\])\](?!\])"), _RIGHT),
    (regex.compile(r"(?<!\{)\{(?!\{)"), _CURLY),
    (regex.compile(r"(?<!\})\}(?!\})"), _UNCURLY),
)
_INNERMOST = regex.compile(r"\{\{([^{}\[\]]*+)\}\}|\[\[([^{}\[\]]*+)\]\]")
# A file, by any alias of its namespace: dumps name one, and pages use those of other wikis and of years ago.
_MEDIA_LINK = regex.compile(r"\.(?:jpe?g|png|gif|svg|tiff?|webp|webm|og[gav]|mp[34]|wav|pdf|djvu|xcf|stl)$", regex.I)
_LANGUAGE_LINK = regex.compile(r"[a-z]{2,3}(-[a-z-]+)?|simple")
_TABLE = regex.compile(rf"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")
_FRAME = regex.compile(r"infobox|navbox|metadata|\btoc\b|sidebar|ambox|mbox|vertical-navbox|wikitable-nav|taxobox")
_MAX_DEPTH = 40


class Converter:
    """Wikitext to text, knowing the wiki's own names of the File and Category namespaces."""

    def __init__(self, namespaces: dict[str, str] | None = None, *, tables: bool = True) -> None:
        # Keys are the dump's namespace numbers. English names work on every wiki.
        keys = (_FILE, _CATEGORY, _MEDIA)
        own = {name.lower() for key, name in (namespaces or {}).items() if key in keys}
        self.media = own | {"file", "image", "category", "media"}
        self.tables = tables

    def text(self, wikitext: str) -> str:
        """The text of a page: paragraphs, headings, list items and table rows, one a line."""
        text = regex.sub(r"[\x00-\x08]", "", wikitext)
        for pattern, replacement in _BEFORE:
            text = pattern.sub(replacement, text)
        for _ in range(_MAX_DEPTH):
            text, changed = _INNERMOST.subn(self._resolved, text)
            if not changed:
                break
        for _ in range(_MAX_DEPTH):
            text, changed = _TABLE.subn(self._table, text)
            if not changed:
                break
        text = _HEADLINE.sub(_heading, text)
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
        return tidy(_sections(html.unescape(html.unescape(text)).translate(_RESTORE)))

    def _resolved(self, match: regex.Match[str]) -> str:
        inside = self._link(match[2]) if match[1] is None else self._template(match[1])
        return inside.replace("|", _BAR)

    def _link(self, body: str) -> str:
        title, bar, label = body.partition("|")
        title = title.strip()
        prefix, colon, _ = title.partition(":")
        prefix = prefix.strip().lower()
        # [[fr:Titre]] is a link between languages; [[:fr:Titre]] is shown.
        if prefix and colon and (prefix in self.media or _LANGUAGE_LINK.fullmatch(prefix) or _MEDIA_LINK.search(title)):
            return ""
        return label if bar else title.lstrip(":").partition("#")[0]

    def _template(self, body: str) -> str:
        name = body.partition("|")[0].strip().lower().replace("_", " ")
        if name.startswith("formatnum:"):
            return name.removeprefix("formatnum:")
        if rule := TEMPLATES.get(name):
            return rule(Template(body))
        if name.startswith(("lang-", "iso-")):
            return _one(Template(body))
        return ""

    def _table(self, match: regex.Match[str]) -> str:
        style, _, body = match[1].partition("\n")
        if not self.tables or _FRAME.search(style.lower()):
            return "\n\n"
        rows: list[list[str]] = [[]]
        for line in body.split("\n"):
            start = line.lstrip()
            if start.startswith("|-"):
                rows.append([])
            elif start.startswith("|+"):
                rows[-1:] = [[_cell(start[2:])], []]
            elif start.startswith(("|", "!")):
                rows[-1] += [_cell(cell) for cell in regex.split(r"\|\||!!" if start[0] == "!" else r"\|\|", start[1:])]
            elif start and rows[-1]:
                rows[-1][-1] += " " + start
        lines = (f" {_BAR} ".join(cell.strip() for cell in row if cell.strip()) for row in rows)
        # Rows of figures alone teach no language.
        return "\n\n" + "\n".join(line for line in lines if regex.search(r"\p{L}", line)) + "\n\n"


_ATTRIBUTES = regex.compile(r"^\s*(?:[\w-]+\s*=\s*(?:\"[^\"]*\"|[^\s\"|]+)\s*)+$")


def _cell(cell: str) -> str:
    """A cell without its attributes (`style="…" | text`)."""
    attributes, bar, text = cell.partition("|")
    return text if bar else _ATTRIBUTES.sub("", attributes)


_HEADLINE = regex.compile(r"^(={1,6})[ \t]*(.*?)[ \t]*\1[ \t]*$", regex.M)
_MARKUP = (
    (regex.compile(r"<br\s*/?>", regex.I), "\n"),
    (regex.compile(r"</?(?:p|div|blockquote|poem|center|table|tr|ul|ol|dl|h[1-6])\b[^<>]*>", regex.I), "\n\n"),
    (regex.compile(r"<li\b[^<>]*>", regex.I), "\n- "),
    (regex.compile(r"<t[dh]\b[^<>]*>", regex.I), " "),
    (regex.compile(r"</?[a-zA-Z][^<>]*>"), ""),
    (regex.compile(r"'{2,5}"), ""),
    (regex.compile(r"^[ \t]*[*][*#:;]*[ \t]*", regex.M), "- "),
    (regex.compile(r"^[ \t]*[#:;][*#:;]*[ \t]*", regex.M), ""),
    (regex.compile(r"^-{4,}", regex.M), ""),
)


def _heading(match: regex.Match[str]) -> str:
    return f"\n\n{_HEADING}{len(match[1])}{match[2]}\n" if match[2] else "\n\n"


def _sections(text: str) -> str:
    """Remove headings with nothing under them, and appendices (see `_APPENDICES`) with what is under them."""
    out: list[tuple[int, str]] = []  # (heading level or 0, line)
    skipping = 0
    for line in text.split("\n"):
        level = int(line[1]) if line.startswith(_HEADING) and line[1:2].isdigit() else 0
        content = line[2:].strip() if level else line
        if level:
            if skipping and level > skipping:
                continue
            skipping = level if content.lower() in _APPENDICES else 0
        if not skipping:
            out.append((level, content))
    kept: list[str] = []
    below = 99  # the lowest heading level that has text under it, reading backwards; 0: text right below
    for level, line in reversed(out):
        if not level:
            if line.strip(" -*:;"):
                below = 0
            kept.append(line)
        elif below == 0 or level < below < 99:
            kept.append(line)
            below = level
    return "\n".join(reversed(kept))


_TIDY = (
    (regex.compile(rf"^.*[{_OPEN}{_CLOSE}].*$", regex.M), ""),  # tables that nobody closed
    (regex.compile(r"^\s*[|!].*$", regex.M), ""),  # and their rows
    (regex.compile(r"\{\{[^{}\n]*\}\}|\{\{(?:cite|citation)\b[^\n]*|\{[^{}\n]*\|[^{}\n]*\}"), ""),
    (regex.compile(r"\[\[|\]\]|\{\{|\}\}|'{2,}"), ""),
    (regex.compile(r"</?[a-zA-Z][^<>\n]*>"), ""),
    (regex.compile(r"[ \t\u00a0]+"), " "),
    (regex.compile(r"([(（\[])(?:\s*[;,:、，；：/–-]+)+\s*"), r"\1"),  # "(; from Greek" -> "(from Greek"
    (regex.compile(r"(?:\s*[;,:、，；：/]+)+\s*([)）\]])"), r"\1"),
    (regex.compile(r"([;,:])(?:\s*[;,])+"), r"\1"),
    (regex.compile(r"([(（\[])\s+"), r"\1"),
    (regex.compile(r"\s+([)）\]])"), r"\1"),
    (regex.compile(r" ?(?:\(\)|（）|\[\])"), ""),
    (regex.compile(r" +([,.;:!?](?:\s|$))"), r"\1"),
    (regex.compile(r"^[ \t]*[-*#:;]*[ \t]*$", regex.M), ""),
    (regex.compile(r"^ +| +$", regex.M), ""),
    (regex.compile(r"\n{3,}"), "\n\n"),
)


def tidy(text: str) -> str:
    """Remove what dropped templates leave behind: empty brackets, doubled commas, stray markup."""
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text.strip()
