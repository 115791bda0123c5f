"""MediaWiki dumps to plain text: articles only; templates that carry running text keep it.

`mwparserfromhell`'s own `strip_code` drops every template ("Mumbai () is  from the sea."), hence the rules
here.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import regex

from langgraft.corpus.document import Record, Report
from langgraft.corpus.streams import opened
from langgraft.errors import CorpusError

_FILE, _CATEGORY = "6", "14"
_TAGS_WITHOUT_TEXT = """
ref references gallery math table timeline score imagemap syntaxhighlight source templatestyles graph
hiero inputbox mapframe maplink section indicator noinclude includeonly chem ce tr td th
"""
_DROPPED_TAGS = frozenset(_TAGS_WITHOUT_TEXT.split())
_PARAGRAPH_TAGS = frozenset(("p", "div", "blockquote", "poem", "center"))
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

Plain = Callable[[Any], str]


def _positional(template: Any, plain: Plain) -> list[str]:
    return [plain(p.value).strip() for p in template.params if not p.showkey]


def _argument(number: int) -> Callable[[Any, Plain], str]:
    def rule(template: Any, plain: Plain) -> str:
        for key in (str(number), "text", "quote"):
            if template.has(key):
                return plain(template.get(key).value).strip()
        return ""

    return rule


def _last(template: Any, plain: Plain) -> str:
    values = [value for value in _positional(template, plain) if value]
    return values[-1] if len(values) > 1 else ""  # the first is a language or script code


def _convert(template: Any, plain: Plain) -> str:
    """`{{convert|10|to|20|km|mi}}` -> "10 to 20 km": the figure as written, without the conversion."""
    values = _positional(template, plain)
    parts: list[str] = []
    for value in values:
        if regex.match(r"[\d.,+\-−/⁄ ]+$", value) and value not in _RANGE_WORDS:
            parts.append(value)
        elif value in _RANGE_WORDS and parts:
            parts.append(_RANGE_WORDS[value])
        else:
            return " ".join([*parts, _UNITS.get(value, value)])
    return " ".join(parts)


def _fraction(template: Any, plain: Plain) -> str:
    values = _positional(template, plain)
    return " ".join(values[:1]) + " " + "/".join(values[1:]) if len(values) == 3 else "/".join(values)


def _constant(text: str) -> Callable[[Any, Plain], str]:
    return lambda _template, _plain: text


_one = _argument(1)
_two = _argument(2)
# Template name -> its text. Every other template is dropped.
TEMPLATES: dict[str, Callable[[Any, Plain], str]] = {
    **dict.fromkeys(("lang", "langr", "tooltip-text"), _two),
    **dict.fromkeys(("transl", "transliteration", "translit", "script", "wikt-lang"), _last),
    **dict.fromkeys(("convert", "cvt", "conv"), _convert),
    **dict.fromkeys(("nowrap", "nobr", "nobreak", "small", "smaller", "big", "larger", "unicode", "iast"), _one),
    **dict.fromkeys(("abbr", "tooltip", "ill", "interlanguage link", "link-interwiki", "sic", "not a typo"), _one),
    **dict.fromkeys(("quote", "blockquote", "cquote", "quotation", "centered pull quote", "bq", "poem"), _one),
    **dict.fromkeys(("visible anchor", "vanchor", "as written", "proper name", "strong", "em", "font", "math"), _one),
    **dict.fromkeys(("nihongo", "polytonic", "hebrew", "spell-nihongo", "gloss", "linktext", "smallcaps"), _one),
    **dict.fromkeys(("sc", "aut", "script/greek", "script/hebrew", "formatnum", "val", "num", "sub", "sup"), _one),
    **dict.fromkeys(("mono", "code", "tt", "overline"), _one),
    **dict.fromkeys(("frac", "sfrac", "fraction"), _fraction),
    **dict.fromkeys(("ndash", "spaced ndash", "snd", "spnd", "dash"), _constant(" – ")),
    **dict.fromkeys(("mdash", "spaced mdash", "em dash"), _constant("—")),
    **dict.fromkeys(("nbsp", "space", "thinsp", "spaces"), _constant(" ")),
    **dict.fromkeys(("=",), _constant("=")),
    **dict.fromkeys(("!",), _constant("|")),
    **dict.fromkeys(("okina", "hamza"), _constant("ʻ")),
    **dict.fromkeys(("'", "`"), _constant("'")),
    "oldstyledate": lambda template, plain: " ".join(_positional(template, plain)[:2]),
    "as of": lambda template, plain: "As of " + " ".join(_positional(template, plain)[:1]),
    "circa": lambda template, plain: "c. " + "–".join(_positional(template, plain)[:2]),
    "c.": lambda template, plain: "c. " + "–".join(_positional(template, plain)[:2]),
    "pound sterling": _constant("£"),
    "gbp": lambda template, plain: "£" + _one(template, plain),
    "us$": lambda template, plain: "US$" + _one(template, plain),
    "usd": lambda template, plain: "US$" + _one(template, plain),
}


class Converter:
    """Wikitext to text, knowing the wiki's own names of the File and Category namespaces."""

    def __init__(self, namespaces: dict[str, str] | None = None) -> None:
        # Keys are the dump's namespace numbers. English names work on every wiki.
        own = {name.lower() for key, name in (namespaces or {}).items() if key in (_FILE, _CATEGORY, "-2")}
        self.media = own | {"file", "image", "category", "media"}

    def text(self, wikitext: str) -> str:
        """The running text of a page: paragraphs, headings and list items, one a line."""
        import mwparserfromhell

        return tidy(_sections(self._plain(mwparserfromhell.parse(_unbroken(wikitext)))))

    def _plain(self, code: Any) -> str:
        return "".join(self._node(node) for node in code.nodes) if code is not None else ""

    def _node(self, node: Any) -> str:
        kind = type(node).__name__
        if kind == "Text":
            return str(node.value)
        if kind == "Wikilink":
            return self._link(node)
        if kind == "Template":
            return self._template(node)
        if kind == "Tag":
            return self._tag(node)
        if kind == "Heading":
            title = self._plain(node.title).strip()
            return f"\n\n{_HEADING}{node.level}{title}\n" if title else "\n\n"
        if kind == "ExternalLink":
            return self._plain(node.title) if node.brackets else ""
        if kind == "HTMLEntity":
            return str(node.normalize())
        return ""  # comments, template arguments

    def _link(self, node: Any) -> str:
        title = str(node.title).strip()
        prefix, colon, _ = title.partition(":")
        prefix = prefix.strip().lower()
        # [[fr:Titre]] is a link between languages; [[:fr:Titre]] is shown.
        if colon and (prefix in self.media or regex.fullmatch(r"[a-z]{2,3}(-[a-z-]+)?|simple", prefix)):
            return ""
        return self._plain(node.text) if node.text is not None else title.lstrip(":").partition("#")[0]

    def _template(self, node: Any) -> str:
        name = str(node.name).strip().lower().replace("_", " ")
        if name.startswith("formatnum:"):
            return name.removeprefix("formatnum:")
        if rule := TEMPLATES.get(name):
            return rule(node, self._plain)
        if name.startswith(("lang-", "iso-")):
            return _one(node, self._plain)
        return ""

    def _tag(self, node: Any) -> str:
        name = str(node.tag).strip().lower()
        if name in _DROPPED_TAGS:
            return ""
        if name == "br":
            return "\n"
        if name in ("li", "dd", "dt"):
            # Wiki markup makes these tags empty: the item's text follows as the next nodes.
            bullet = "" if name != "li" or node.wiki_markup in (None, "#") else "- "
            return bullet + (self._plain(node.contents) if node.contents else "")
        inside = self._plain(node.contents)
        return f"\n\n{inside}\n\n" if name in _PARAGRAPH_TAGS else inside


_HEADING = "\x00"  # marks a heading line until the sections are sorted out; XML cannot hold it


def _unbroken(wikitext: str) -> str:
    """Drop the parts that confuse a parser: comments, behaviour switches, tables left open at the end."""
    wikitext = regex.sub(r"(?s)<!--.*?(-->|$)", "", wikitext)
    return regex.sub(r"__[A-Z]{3,}__", "", wikitext)


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
    (regex.compile(r"\{\|.*?(\n\|\}|\Z)", regex.S), "\n"),  # tables the parser could not close
    (regex.compile(r"^\s*[|!].*$", regex.M), ""),  # and their leftover rows
    (regex.compile(r"\{\{[^{}\n]*\}\}|\{\{(?:cite|citation)\b[^\n]*|\{[^{}\n]*\|[^{}\n]*\}"), ""),
    (regex.compile(r"\[\[|\]\]|\{\{|\}\}|'{2,}"), ""),
    (regex.compile(r"</?[a-zA-Z][^<>\n]*>"), ""),
    (regex.compile(r"&(?:nbsp|thinsp|ensp);"), " "),  # escaped twice in the dump
    (regex.compile(r"&[nm]dash;"), "–"),
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


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def mediawiki(path: Path, report: Report) -> Iterator[Record]:
    """Articles of an XML dump (namespace 0, no redirects), streaming; the key is the page's title.

    Raises:
        CorpusError: the file is not XML, is cut short, or is no MediaWiki dump.
    """
    pages = 0
    with opened(path, report) as file:
        try:
            for record in _pages(ET.iterparse(file, events=("start", "end")), path, report):
                pages += 1
                yield record
        except ET.ParseError as error:
            raise CorpusError(
                f"{path} is cut short or not XML: after {pages:,} articles, {error}; get a complete copy of the file"
            ) from error


def _pages(events: Any, path: Path, report: Report) -> Iterator[Record]:
    namespaces: dict[str, str] = {}
    converter: Converter | None = None
    root: Any = None
    for event, element in events:
        name = _local(element.tag)
        if root is None:
            root = element
            if name != "mediawiki":
                raise CorpusError(f"{path} is no MediaWiki dump: its first element is <{name}>, not <mediawiki>")
        if event != "end":
            continue
        if name == "namespace":
            namespaces[element.get("key", "")] = element.text or ""
        elif name == "page":
            converter = converter or Converter(namespaces)
            title, wikitext = _article(element, report)
            root.clear()  # or the whole dump stays in memory
            text = converter.text(wikitext) if wikitext else ""
            if text:
                yield Record(text, title)
            elif wikitext:
                report.note("empty_articles", f"{path}: {title}")


def _article(page: Any, report: Report) -> tuple[str, str]:
    """Title and wikitext of a page; the wikitext is empty for redirects and pages that are no articles."""
    fields = {_local(child.tag): child for child in page.iter()}
    title = fields["title"].text or "" if "title" in fields else ""
    namespace = fields["ns"].text if "ns" in fields else "0"
    wikitext = fields["text"].text or "" if "text" in fields else ""
    if namespace != "0":
        report.counts["other_namespaces"] += 1
        return title, ""
    if "redirect" in fields or regex.match(r"\s*#\w+\s*:?\s*\[\[", wikitext):
        report.counts["redirects"] += 1
        return title, ""
    return title, wikitext
