"""The page of a run: whole, safe, self-contained and readable whatever part of the figures is there."""

import copy
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import ROOT, Finished

from langgraft.errors import InputError
from langgraft.evaluation import report as report_module
from langgraft.evaluation.report import SECTIONS, render, write_report

EXAMPLE = Path(__file__).parent / "example_report.json"
VOID = {"meta", "link", "br", "img", "hr"}


@pytest.fixture
def example() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return loaded


class Page(HTMLParser):
    """Checks that every tag closes in order, and gathers what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"attribute twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_the_example_page_is_well_formed_and_says_what_was_proved(example: dict[str, Any]) -> None:
    page = Page(render(example))
    assert (
        "Cantonese text now takes 53% fewer tokens and is predicted 29% better; "
        "English is within 0.6% of the base; every check passed." in page.words
    )
    for heading in (
        "How well each language is predicted",
        "What text costs",
        "Training",
        "The same prompt, before and after",
        "Checks",
        "The text it learned from",
        "Exported files",
        "How it was made",
        "Words used here",
    ):
        assert heading in page.words
    assert "95% interval −29.7% to −28.3%" in page.words
    assert "None" not in page.words
    assert "nan" not in page.words


@pytest.mark.parametrize("missing", ["name", "created", "langgraft", "base", *SECTIONS])
def test_any_section_may_be_missing_or_empty(example: dict[str, Any], missing: str) -> None:
    present = Page(render(example))
    assert "None" not in present.words
    without = {key: value for key, value in example.items() if key != missing}
    page = Page(render(without))
    assert "None" not in page.words
    assert render(without | {missing: None}) == render(without)
    if missing in SECTIONS:
        assert render(without | {missing: SECTIONS[missing]()}) == render(without)


@pytest.mark.parametrize("only", list(SECTIONS))
def test_any_section_may_stand_alone(example: dict[str, Any], only: str) -> None:
    Page(render({only: example[only]}))


def test_parts_of_sections_may_be_missing(example: dict[str, Any]) -> None:
    def hollow(value: Any, depth: int) -> list[Any]:
        """`value` with each nested entry left out in turn."""
        made = []
        if isinstance(value, dict):
            for key in value:
                made.append({k: v for k, v in value.items() if k != key})
                if depth:
                    made += [{**value, key: smaller} for smaller in hollow(value[key], depth - 1)]
        return made

    for section in (name for name, kind in SECTIONS.items() if kind is dict):
        for smaller in hollow(example[section], 2):
            assert "None" not in Page(render({**example, section: smaller})).words


def test_an_empty_report_is_a_page_that_says_so() -> None:
    page = Page(render({}))
    assert "Nothing has been measured in this run yet." in page.words
    assert page.headings == ["h1", "h2"]
    assert not page.all("svg")


def test_text_is_escaped_everywhere(example: dict[str, Any]) -> None:
    evil = "<script>alert('&')</script>"

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                (f"{evil}{key}" if key in ("CC0-1.0", "too short", "torch") else key): poison(item)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [poison(item) for item in value]
        return f"{evil}{value}" if isinstance(value, str) else value

    html = render(poison(example))
    page = Page(html)
    assert "<script" not in html
    assert evil in page.words


def test_the_page_asks_the_network_for_nothing(example: dict[str, Any]) -> None:
    example["corpus"]["target"]["sources"]["https://example.org/dump"] = 1
    html = render(example)
    page = Page(html)
    assert not page.all("script")
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name) in (None, "data:,")
    assert not re.search(r"@import|url\(|@font-face", html)
    assert "default-src 'none'" in html
    assert not re.search("https?://", html.replace("https://example.org/dump", ""))


def test_headings_tables_and_drawings_are_accessible(example: dict[str, Any]) -> None:
    page = Page(render(example))
    levels = [int(heading[1]) for heading in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for drawing in page.all("svg"):
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= set(ids)
    for section in page.all("section"):
        assert section["aria-labelledby"] in ids


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two colours."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_light_and_dark() -> None:
    style = Path(report_module.__file__).with_name("report_style.html").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in style.split("@media")[:2])
    for colours in (light, dark):
        for text in ("ink", "soft", "accent", "fail"):
            for ground in ("paper", "raised"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for ground in ("wash-base", "wash-adapted"):
            assert contrast(colours["ink"], colours[ground]) >= 4.5
        for status in ("pass", "fail", "open"):
            assert contrast(colours[status], colours[f"wash-{status}"]) >= 4.5
        for fill in ("base", "accent"):
            assert contrast(colours[fill], colours["paper"]) >= 3.0


def test_every_gate_is_shown_with_figures_and_in_words(example: dict[str, Any]) -> None:
    example["gates"][0]["passed"] = False
    example["gates"][1]["passed"] = None
    words = Page(render(example)).words
    for gate in example["gates"] + example["tokenizer"]["gates"]:
        assert gate["name"] in words
        assert gate["value"] in words
    assert "✗ failed" in words
    assert "○ not judged" in words
    assert "✓ passed" in words


def test_generations_carry_language_and_direction(example: dict[str, Any]) -> None:
    example["generations"] = [
        {"language": "fa", "prompt": "سلام", "base": "hello", "adapted": "سلام دنیا"},
        {"language": "en", "prompt": "", "base": "", "adapted": "x" * 5000},
        {"language": "yue", "prompt": "未答"},
    ]
    page = Page(render(example))
    texts = [p for p in page.all("p") if p.get("class") == "text"]
    assert [(p["lang"], p["dir"]) for p in texts] == [("fa", "auto")] * 2 + [("en", "auto")] * 2
    assert "(empty prompt)" in page.words
    assert "(nothing)" in page.words
    assert "未答" not in page.words


def test_the_token_example_shows_every_piece(example: dict[str, Any]) -> None:
    page = Page(render(example))
    pieces = example["tokens"]["example"]
    assert f"base: {len(pieces['base'])} tokens" in page.words
    assert f"adapted: {len(pieces['adapted'])} tokens" in page.words
    assert len(page.all("ol")) == 2


@pytest.mark.parametrize("steps", [1, 2, 5000])
def test_curves_of_any_length(example: dict[str, Any], steps: int) -> None:
    example["training"]["curve"] = [
        {"step": step, "loss": 5 / (step + 1), "learning_rate": 1e-4, "bits_per_byte": 3.0} for step in range(steps)
    ]
    html = render(example)
    page = Page(html)
    assert {"chart-loss-wide", "chart-loss-narrow"} <= {drawing["id"] for drawing in page.all("svg")}
    assert len(html) < 250_000
    assert "Held-out bits per byte" in page.words


def test_a_curve_of_numbers_that_are_none_is_left_out(example: dict[str, Any]) -> None:
    example["training"] = {"curve": [{"step": 1, "loss": float("nan")}, {"loss": 2.0}, {"step": 3}]}
    page = Page(render(example))
    assert "Training loss" not in page.words
    assert 'id="h-training"' not in render(example)


def test_reports_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(InputError, match="must be a dict of sections, not list"):
        render([])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="section 'gates' of the report must be a list, not"):
        render({"gates": {"name": "x"}})


def test_render_is_repeatable_and_leaves_the_report_alone(example: dict[str, Any]) -> None:
    before = copy.deepcopy(example)
    assert render(example) == render(example)
    assert example == before


def test_write_report_writes_both_faces(example: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "example"
    example["bits_per_byte"]["target"]["base"]["mean"] = float("nan")
    write_report(example, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    saved = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert saved["bits_per_byte"]["target"]["base"]["mean"] is None
    assert (folder / "report.html").read_text(encoding="utf-8") == render(saved)


def test_write_report_leaves_older_files_whole_when_it_fails(
    example: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(example, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError):
        write_report({"stages": 3}, tmp_path)

    def no_rename(self: Path, target: Path) -> Path:  # noqa: ARG001
        raise OSError("power cut")

    monkeypatch.setattr(Path, "replace", no_rename)
    with pytest.raises(OSError, match="power cut"):
        write_report({**example, "name": "newer"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def schema() -> jsonschema.Draft202012Validator:
    """The schema of report.json."""
    found = json.loads((Path(report_module.__file__).parent / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_real_and_invented_reports_follow_the_schema(
    example: dict[str, Any], finished: Finished, tmp_path: Path
) -> None:
    real = json.loads((finished.run / "report.json").read_text(encoding="utf-8"))
    write_report(example, tmp_path)
    for report in (real, json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))):
        assert [error.message for error in schema().iter_errors(report)] == []
    assert set(real) | set(SECTIONS) | {"example"} >= set(real)


@pytest.mark.parametrize(
    "broken",
    [
        {"schema": 2},
        {"warnings": [{"check": "gain"}]},
        {"verdict": {"status": "fine", "text": "", "paragraph": ""}},
        {"choice": {"translation": {"to_target": {}}}},
        {"code_mixed": {"models": {"base": {"mean": "low"}}}},
        {"gates": [{"name": "a"}]},
        {"generations": [{"prompt": "a", "written_in": {"base": True}}]},
        {"corpus": {"target": {"documents": "many"}}},
    ],
)
def test_the_schema_finds_what_is_wrong(example: dict[str, Any], tmp_path: Path, broken: dict[str, Any]) -> None:
    write_report(example, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(schema().iter_errors({**report, **broken}))


def test_every_section_is_in_the_schema_and_in_the_docs() -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    for name in ("schema", "verdict", "warnings", *SECTIONS):
        assert name in schema().schema["properties"]
        assert f"`{name}`" in text


def test_warnings_stand_before_the_figures(example: dict[str, Any]) -> None:
    assert "Before you trust" not in Page(render(example)).words
    example["bits_per_byte"]["source"]["change"] = {"mean": 0.2, "low": 0.1, "high": 0.3}
    words = Page(render(example)).words
    assert "English was partly forgotten" in words
    assert words.index("Before you trust the figures") < words.index("What the run proved")


def test_every_measure_is_on_the_page_with_its_interval(example: dict[str, Any]) -> None:
    words = Page(render(example)).words
    for piece in (
        "Translation into Cantonese",
        "Continuation, English",
        "Agreement",
        "script purity",
        "chrF",
        "BLEU",
        "Sentiment (sentiment, target)",
        "langgraft_yue_qa, acc",
        "Cantonese mixed with English",
        "Into Cantonese, BLEU: nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.6.0",
    ):
        assert piece in words, piece
    assert "49% 44% to 54%" in words
    assert "better +22.0 points (+17.5 to +26.5)" in words
    assert "no measurable difference" in words


def test_answers_carry_the_language_they_are_in(example: dict[str, Any]) -> None:
    words = Page(render(example)).words
    assert "in Chinese" in words
    assert "may be Cantonese" in words
    assert "after surgery" in words
