"""Wikitext left in the text of real articles, and how fast dumps are read: `python benchmarks/mediawiki.py FILE...`.

Files are MediaWiki XML dumps, compressed or not, and folders of `.txt` files with the wikitext of one page each.
Writes docs/benchmarks-mediawiki.md. The text of every article is searched for what wikitext is made of. Rates are of
unpacked XML and of processor time: of the reader alone, and of `langgraft corpus` (languages told and counted,
filters, near duplicates, one process). Files under 1 MB are not timed.

The files here: the dumps in gensim's tests (English and Bulgarian Wikipedia), the Latgalian Wikipedia of 2017
in dumpster-dive's tests (`tests/smallwiki-latest-pages-articles.xml`, named ltgwiki.xml), and the 71 pages in
wtf_wikipedia's tests (`tests/cache`, English, German and Afrikaans).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path

import regex

from langgraft.corpus.document import Document, Input, Report
from langgraft.corpus.prepare import prepare
from langgraft.corpus.readers import read
from langgraft.corpus.streams import opened
from langgraft.corpus.thresholds import thresholds
from langgraft.progress import Log
from langgraft.store import atomic_write

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-mediawiki.md"
TIMED = 1_000_000

RESIDUE = {
    "links `[[ ]]`": regex.compile(r"\[\[|\]\]"),
    "templates `{{ }}`": regex.compile(r"\{\{|\}\}"),
    "tables": regex.compile(r"\{\||^\s*\|[-}+]", regex.M),
    "cell attributes": regex.compile(r"\b(?:style|class|colspan|rowspan|align|bgcolor|width)\s*=\s*[\"'\d]", regex.I),
    "bold and italics": regex.compile(r"''+"),
    "headings `==`": regex.compile(r"^=+[^=\n]+=+\s*$", regex.M),
    "tags": regex.compile(
        r"</?(?:ref|div|span|br|small|nowiki|math|table|t[rdh]|p|sup|sub|center|font|gallery)\b[^<>]*>", regex.I
    ),
    "entities": regex.compile(r"&(?:[a-z]{2,8}|#\d+);", regex.I),
    "comments": regex.compile(r"<!--|-->"),
    "magic words": regex.compile(r"__[A-Z]{3,}__|^#[A-Z]{4,}\b", regex.M),
    "files and categories": regex.compile(r"^\s*(?:File|Image|Category|Datei|Kategorie):|\bthumb\||\|thumb\b", regex.M),
    "addresses in brackets": regex.compile(r"\[(?:https?:)?//"),
}


def residue(text: str) -> dict[str, list[str]]:
    """What looks like wikitext in `text`: the matches, and what stands around them, by kind."""
    found = {
        name: [text[max(0, m.start() - 40) : m.end() + 40] for m in of.finditer(text)] for name, of in RESIDUE.items()
    }
    return {name: places for name, places in found.items() if places}


def dump_of(folder: Path, out: Path) -> Path:
    """A dump of the `.txt` files of a folder, one page each; some hold wikitext as it stands in XML."""
    path = out / f"{folder.name}.xml"
    names = '<siteinfo><namespaces><namespace key="14">Kategorie</namespace></namespaces></siteinfo>'
    pages = []
    for file in sorted(folder.glob("*.txt")):
        text = file.read_text(encoding="utf-8")
        text = escape(unescape(text) if "&lt;ref" in text else text)
        pages.append(f"<page><title>{escape(file.stem)}</title><revision><text>{text}</text></revision></page>")
    path.write_text("\n".join(["<mediawiki>", names, *pages, "</mediawiki>"]), encoding="utf-8")
    return path


def articles(path: Path) -> Iterator[Document]:
    yield from read([Input(str(path), reader="mediawiki")], "und", Report())


def size_of(path: Path) -> int:
    """Bytes of the dump when unpacked."""
    size = 0
    with opened(path, Report()) as file:
        while piece := file.read(1 << 20):
            size += len(piece)
    return size


def rates(path: Path, language: str, out: Path) -> list[float]:
    """Seconds of processor time of the reader alone and of the corpus stage."""
    start = time.process_time()
    for _ in articles(path):
        pass
    alone = time.process_time() - start
    start = time.process_time()
    bounds = thresholds(language, wanted=True)
    dumps = [Input(str(path), reader="mediawiki")]
    prepare(dumps, out, language=language, thresholds=bounds, mixed="keep", log=Log(quiet=True))
    return [alone, time.process_time() - start]


def main() -> None:
    """Read, search, time, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--language", default="en", help="what the corpus stage takes the dumps to be")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        paths = [dump_of(path, scratch) if path.is_dir() else path for path in given.files]
        found = [(path, list(articles(path)), size_of(path)) for path in paths]
        every = [document for _, documents, _ in found for document in documents]
        timed = [
            (path, documents, size, rates(path, given.language, scratch / f"out-{i}"))
            for i, (path, documents, size) in enumerate(found)
            if size >= TIMED
        ]
    left = {document.id: residue(document.text) for document in every}
    for key, kinds in left.items():
        if kinds:
            print(json.dumps({key: kinds}, ensure_ascii=False))
    lines = ["# MediaWiki dumps", "", (__doc__ or "").split("\n\n", 1)[1].strip(), ""]
    lines += [f"{len(every):,} articles, {sum(len(document.text) for document in every):,} characters:", ""]
    lines += ["| left of wikitext | articles | places |", "| --- | ---: | ---: |"]
    for kind in RESIDUE:
        places = [len(kinds.get(kind, ())) for kinds in left.values()]
        lines.append(f"| {kind} | {sum(map(bool, places))} | {sum(places)} |")
    lines += [
        "",
        "| dump | MB of XML | articles | reader, MB/s | `langgraft corpus`, MB/s |",
        "| --- |" + " ---: |" * 4,
    ]
    for path, documents, size, (alone, stage) in timed:
        lines.append(
            f"| {path.name} | {size / 1e6:.1f} | {len(documents):,} "
            f"| {size / 1e6 / alone:.1f} | {size / 1e6 / stage:.1f} |"
        )
    page = "\n".join([*lines, ""])
    print(page)
    atomic_write(PAGE, page)


if __name__ == "__main__":
    main()
