"""Do translation choice and continuation choice tell models apart? Writes docs/choice.md.

    python benchmarks/choice.py --models base=MODEL cantonese=MODEL \\
        --parallel fr=PATH yue=PATH fa=PATH --texts en=PATH yue=PATH [--items 80] [--work FOLDER]

For every language, items are made of the parallel text (both directions) and of the monolingual text, and every model
answers them. Expected: above chance where a model knows the language, at chance where it does not, and higher after a
model was taught the language. Scores are kept in the work folder: the same command goes on after a kill.
"""

import argparse
import sys
import tempfile
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from typing import Any

from langgraft.corpus.stream import texts_of
from langgraft.evaluation.choice import Built, Choice, continuation_items, translation_items
from langgraft.evaluation.models import named
from langgraft.evaluation.rows import parallel_texts
from langgraft.evaluation.suite import Way, evaluate
from langgraft.progress import Log
from langgraft.text import language

PAGE = Path(__file__).parent.parent / "docs" / "choice.md"
TEXT = """# Translation choice and continuation choice: do they tell models apart?

Written by `benchmarks/choice.py`. An item shows a sentence and asks for its translation, or the beginning of a text
and asks how it goes on; {options} options, so that chance is {chance:.0%}. Wrong options are as long as the right one
and as alike in words as there are, and end with the same kind of mark; pairs that share a number, a placeholder, a
word of three letters, a bracket or a sign are left out, since their answer could be copied. The score of an option is
how much more likely the context makes it (pointwise mutual information); {shots} example pairs stand before every
translation item. 95% intervals by bootstrap over items, changes paired.

{models}

| language | items | model | right (interval) | change to {first} | per byte | sum |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

*per byte* and *sum* are the shares right by the two usual scores of the same answers (lm-evaluation-harness's acc_norm
and acc).
"""


def built(asked: argparse.Namespace) -> dict[tuple[str, str, str], Built]:
    """Items by kind, way and language code."""
    found: dict[tuple[str, str, str], Built] = {}
    english = language("en")
    for pair in asked.parallel:
        code, path = pair.split("=", 1)
        pairs = parallel_texts([path], code, "en")
        for way in ("to_target", "to_source"):
            how: dict[str, Any] = {"to_target": way == "to_target", "items": asked.items, "shots": asked.shots}
            found["translation", way, code] = translation_items(pairs, language(code), english, **how)
    for pair in asked.texts:
        code, path = pair.split("=", 1)
        texts = [(text, path) for text in texts_of([path], code)[:2000]]
        found["continuation", "of", code] = continuation_items(texts, language(code), items=asked.items)
    return found


def rows(results: dict[str, Any], first: str) -> list[str]:
    """The table's rows."""
    lines = []
    for ways in results.values():
        for way, codes in ways.items():
            for code, found in codes.items():
                name = language(code).name
                what = {"to_target": f"English to {name}", "to_source": f"{name} to English"}.get(
                    way, f"{name}, continued"
                )
                for model, figure in found["models"].items():
                    change = found["changes"].get(model)
                    told = (
                        f"{change['mean']:+.1%} ({change['low']:+.1%} to {change['high']:+.1%}), {change['verdict']}"
                        if change
                        else ""
                    )
                    others = " | ".join(
                        f"{found['by'][score]['models'][model]['mean']:.0%}" for score in ("per_byte", "sum")
                    )
                    right = f"{figure['mean']:.1%} ({figure['low']:.0%} to {figure['high']:.0%})"
                    mark = " **above chance**" if found["above_chance"][model] else ""
                    items = found["items"] if model == first else ""
                    label = what if model == first else ""
                    lines.append(f"| {label} | {items} | {model} | {right}{mark} | {told} | {others} |")
    return lines


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--parallel", nargs="*", default=[])
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--items", type=int, default=80)
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--note", default="", help="what the models are, for the page")
    asked = parser.parse_args()
    models = named(asked.models)
    items = built(asked)
    for (kind, way, code), one in items.items():
        print(f"{kind} {way} {code}: {len(one.items)} items, left out {one.left_out}", flush=True)
    work = asked.work or Path(tempfile.mkdtemp(prefix="langgraft-"))
    measures = [Choice(key, one) for key, one in items.items() if one.items]
    results = evaluate(models, measures, work, way=Way(), threads=asked.threads, log=Log())
    page = TEXT.format(
        options=4, chance=0.25, shots=asked.shots, models=textwrap.fill(asked.note, 120), first=models[0].name,
        rows="\n".join(rows(results, models[0].name)),
    )  # fmt: skip
    PAGE.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
