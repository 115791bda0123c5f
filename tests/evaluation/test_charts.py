"""Drawings: round ticks, honest smoothing, well-formed SVG."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.evaluation.charts import (
    Bar,
    Line,
    Panel,
    bar_chart,
    curve_chart,
    smooth,
    thin,
    tick_text,
    ticks,
)

SVG_TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), max_size=30)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 10))
def test_ticks_are_few_and_inside(low: float, spread: float, count: int) -> None:
    made = ticks(low, low + spread, count)
    slack = spread * 1e-3 + 1e-9 * abs(low)
    assert len(made) <= count + 2
    assert made == sorted(made)
    assert all(low - slack <= tick <= low + spread + slack for tick in made)


def test_ticks_are_round() -> None:
    assert ticks(0, 3.64, 4) == [0, 1, 2, 3]
    assert ticks(0, 0.0002, 2) == [0, 0.0001, 0.0002]
    assert ticks(7, 7, 4) == [7]


@pytest.mark.parametrize("value, text", [(0, "0"), (2.5, "2.5"), (0.0001, "1e-4"), (12000, "12,000"), (-1, "-1")])
def test_tick_text(value: float, text: str) -> None:
    assert tick_text(value) == text


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 20))
def test_smoothing_stays_within_the_points(values: list[float], window: int) -> None:
    points = list(enumerate(values))
    smoothed = smooth(points, window)
    assert [x for x, _ in smoothed] == [x for x, _ in points]
    assert all(min(values) - 1e-9 <= y <= max(values) + 1e-9 for _, y in smoothed)


def test_thinning_keeps_the_ends() -> None:
    points = [(float(step), 1.0) for step in range(1003)]
    kept = thin(points, 100)
    assert len(kept) <= 101
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert thin(points[:5], 100) == points[:5]


@given(SVG_TEXT, st.floats(0, 1e6), st.floats(0, 1))
def test_bars_are_well_formed_whatever_they_hold(label: str, value: float, spread: float) -> None:
    bars = [
        Bar("base", "base", value, value * (1 - spread), value * (1 + spread)),
        Bar(label, "adapted", value),
    ]
    drawing = ET.fromstring(str(bar_chart("c", label, "unit", [(label, bars)])))
    rects = [element for element in drawing if element.tag == "rect"]
    assert len(rects) == 2
    width = float(drawing.attrib["viewBox"].split()[2])
    assert all(float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width for rect in rects)


def test_bars_say_their_values_to_screen_readers() -> None:
    drawing = bar_chart("c", "Title", "bits", [("English", [Bar("base", "base", 1.5, 1.25, 1.75)])])
    assert ">bits. English: base 1.50 (95% interval 1.25 to 1.75).</desc>" in drawing


def test_curves_with_one_point_have_a_dot_and_no_line() -> None:
    panel = Panel("Loss", 100, (Line("raw", "raw", ((7.0, 3.0),)),))
    drawing = ET.fromstring(str(curve_chart("c", "t", "d", [panel], width=360)))
    assert len(drawing.findall("circle")) == 1
    assert not drawing.findall("polyline")


def test_curves_stay_inside_their_panel() -> None:
    points = tuple((float(step), (-1) ** step * step / 10) for step in range(50))
    panel = Panel("漢字", 100, (Line("漢字", "raw", points),))
    drawing = ET.fromstring(str(curve_chart("c", "t", "d", [panel], width=360)))
    (line,) = drawing.findall("polyline")
    places = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert all(50 <= x <= 346 and 24 <= y <= 124 for x, y in places)
