"""Wikitext to text."""

import bz2
import runpy
from pathlib import Path

import pytest

from langgraft.corpus.document import Report
from langgraft.corpus.mediawiki import mediawiki
from langgraft.corpus.streams import File
from langgraft.corpus.wikitext import Converter, tidy
from langgraft.errors import CorpusError

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmarks" / "mediawiki.py"
DUMPS = ROOT.parent / "shared" / "materials" / "formats" / "mediawiki_xml_bz2"

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="hi"><siteinfo><namespaces>
<namespace key="6">चित्र</namespace><namespace key="14">श्रेणी</namespace></namespaces></siteinfo>
<page><title>A</title><ns>0</ns><revision>
<text>'''एक''' [[दो|शब्द]] [[चित्र:x.jpg|thumb|cap]][[श्रेणी:क]]</text></revision></page>
<page><title>Talk:A</title><ns>1</ns><revision><text>talk</text></revision></page>
<page><title>R</title><ns>0</ns><redirect title="A"/><revision><text>#REDIRECT [[A]]</text></revision></page>
<page><title>S</title><ns>0</ns><revision><text>#पुनर्प्रेषित [[A]]</text></revision></page>
<page><title>E</title><ns>0</ns><revision><text>{{infobox}}</text></revision></page>
</mediawiki>"""


def convert(wikitext: str) -> str:
    return Converter().text(wikitext)


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        (
            "Mumbai ({{lang|mr|मुंबई}}) is {{convert|10|km|mi}} from the sea.",
            "Mumbai (मुंबई) is 10 km from the sea.",
        ),
        ("{{convert|10|to|20|km2|sqmi}} wide", "10 to 20 km² wide"),
        ("{{frac|1|1|2}} and {{frac|3|4}} of {{formatnum:1234}}", "1 1/2 and 3/4 of 1234"),
        ("A ({{IPAc-en|x}}; from Greek {{lang-el|ἄλφα}})", "A (from Greek ἄλφα)"),
        ("B ({{IPA|x}}) c<ref>cite</ref>, d<ref name=x />.", "B c, d."),
        ("{{Infobox|a=b\n|c={{x}}}}\nText", "Text"),
        (
            '{| class=x\n|+ Cap\n|-\n! a !! b\n|-\n| [[c|d]] || style="x" | e\n|-\n| 1 || 2\n|}\nText',
            "Cap\na | b\nd | e\nText",
        ),
        ("{| class=infobox\n| cell\n|}\n{| \n| open\nText", "Text"),
        (
            "{{hlist|a|b}}, {{plainlist|\n* c\n* [[d]]}} {{nihongo|Tokyo|東京|Tōkyō}}",
            "a, b,\n- c\n- d\nTokyo (東京 Tōkyō)",
        ),
        ("-{zh-hans:简;zh-hant:繁}- [1] {x} {{{1|default}}} {{#if: a|b}}", "简 [1] {x} default"),
        ("* one\n* [[two]]\n# three", "- one\n- two\nthree"),
        ("See [[:fr:Titre]] [[fr:Titre]][http://x label] http://bare", "See fr:Titre label"),
        ("a&nbsp;b &amp;ndash; c<!-- no -->", "a b – c"),
        ("== H ==\nbody\n== References ==\n* r\n=== Sub ===\nx\n== Empty ==\n== K ==\nz", "H\nbody\nK\nz"),
        ("== A ==\n=== B ===\ntext", "A\n\nB\ntext"),
        ("<blockquote>Said</blockquote>{{quote|So}} x<br>y<math>z</math>", "Said\n\nSo x\ny"),
        (
            "{{as of|2011}}, {{circa|1900}} {{us$|5}}{{mdash}}{{snd}}{{unknown|text}}",
            "As of 2011, c. 1900 US$5— –",
        ),
        ("{{lang|fr}} {{transl|ar}} x", "x"),
        ("{{quote|text=Named}}", "Named"),
        ("__NOTOC__ t {{cite web |url=x", "t"),
        ("[[Attēls:A b.JPG|thumb|250px|cap]]x [[:Bild:a.png|label]] [[Star Trek: V]]", "x label Star Trek: V"),
    ],
)
def test_wikitext(wikitext: str, expected: str) -> None:
    found = convert(wikitext)
    assert found.replace("\n\n", "\n") == expected.replace("\n\n", "\n")


PLANTED = {
    "links `[[ ]]`": "a [[b",
    "templates `{{ }}`": "a}} b",
    "tables": "a\n|-\nb",
    "cell attributes": 'a colspan="2" b',
    "bold and italics": "a ''b'' c",
    "headings `==`": "a\n== b ==\nc",
    "tags": "a<br />b",
    "entities": "a&nbsp;b",
    "comments": "a<!-- b",
    "magic words": "__NOTOC__",
    "files and categories": "a\nthumb|250px|b",
    "addresses in brackets": "a [http://b c]",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_residue_is_found(kind: str) -> None:
    residue = runpy.run_path(str(BENCHMARK))["residue"]
    assert set(residue(PLANTED[kind])) == {kind}
    assert residue("Mumbai (मुंबई) is 10 km from the sea.\na | b\n- one, it's 5 < 6 & so [on]") == {}


@pytest.mark.skipif(not DUMPS.is_dir(), reason="needs the real dumps")
def test_no_wikitext_is_left_of_real_articles() -> None:
    residue = runpy.run_path(str(BENCHMARK))["residue"]
    dumps = sorted(DUMPS.glob("*.bz2"))
    articles = [record for path in dumps for record in mediawiki(File(path, Report()))]
    assert len(articles) > 100
    assert {record.key: found for record in articles if (found := residue(record.text))} == {}


def test_tidy_is_stable() -> None:
    once = tidy("a ( ; , b ) c () ,d , e\n\n\n\n|x\n'''f''' [[")
    assert once == tidy(once) == "a (b) c ,d, e\n\nf"


def test_dump(tmp_path: Path) -> None:
    path = tmp_path / "x.xml.bz2"
    path.write_bytes(bz2.compress(DUMP.encode()))
    report = Report()
    assert [(r.key, r.text) for r in mediawiki(File(path, report))] == [("A", "एक शब्द")]
    assert dict(report.counts) == {"other_namespaces": 1, "redirects": 2, "empty_articles": 1}
    path = tmp_path / "y.xml"
    path.write_bytes(b"\xff\xfe" + DUMP.encode("utf-16-le"))
    assert len(list(mediawiki(File(path, Report())))) == 1


def test_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_text(DUMP[: DUMP.index("<page><title>Talk")])
    with pytest.raises(CorpusError, match="cut short or not XML: after 1 articles"):
        list(mediawiki(File(path, Report())))
    path = tmp_path / "x.xml.bz2"
    path.write_bytes(bz2.compress(DUMP.encode())[:-30])
    with pytest.raises(CorpusError, match="is cut short"):
        list(mediawiki(File(path, Report())))
