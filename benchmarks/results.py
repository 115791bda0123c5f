"""Write the README's table of results from a finished run's report.json.

    python benchmarks/results.py [RUN] [--busy]        default: runs/cantonese-smollm2

Every figure between the two markers comes from that file; nothing is typed by hand. `--busy` says that the machine had
other work to do, so that its times are not those of the README's machine.
"""

import argparse
from pathlib import Path
from typing import Any

from langgraft.status import report_of
from langgraft.store import atomic_write

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- results: written by benchmarks/results.py -->", "<!-- end of results -->"


def table(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    bits, tokens, training = report["bits_per_byte"], report["tokens"], report["training"]
    names = {"target": report["language"]["name"], "source": report["source_language"]["name"]}
    lines = ["| held-out test split | base | adapted | change (95% interval) |", "| --- | --- | --- | --- |"]
    for side, name in names.items():
        facts = bits[side]
        change = facts["change"]
        interval = f"{change['low']:+.1%} to {change['high']:+.1%}"
        lines.append(
            f"| {name}, bits per byte ({facts['documents']:,} documents) | {facts['base']['mean']:.3f} "
            f"| {facts['adapted']['mean']:.3f} | {change['mean']:+.1%} ({interval}) |"
        )
    for side, name in names.items():
        facts = tokens[side]
        lines.append(
            f"| {name}, tokens per character | {facts['base']['tokens_per_character']:.2f} "
            f"| {facts['adapted']['tokens_per_character']:.2f} | {facts['saved']:.1%} fewer tokens |"
        )
    minutes = training["seconds"] / 60
    machine = report["machine"]
    lines += [
        "",
        f"{training['steps']} steps of {training['tokens'] // training['steps']:,} tokens in {minutes:.1f} minutes "
        f"({training['tokens_per_second']:.0f} tokens/s), {training['replay_ratio']:.0%} of them replay; "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']:.0f} GB, torch "
        f"{machine['versions']['torch']}, transformers {machine['versions']['transformers']}; "
        f"{report['created'][:10]}.",
        "",
        "| check | found | bound |",
        "| --- | --- | --- |",
        *(
            f"| {gate['name']} | {gate['value']} | {gate['bound']} |" + ("" if gate["passed"] else " **failed**")
            for gate in report["gates"]
        ),
        "",
        "| stage | " + " | ".join(stage["name"] for stage in report["stages"]) + " |",
        "| --- | " + " | ".join("---" for _ in report["stages"]) + " |",
        "| seconds | " + " | ".join(f"{stage['seconds']:.0f}" for stage in report["stages"]) + " |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Rewrite the README between its markers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/cantonese-smollm2"))
    parser.add_argument("--busy", action="store_true")
    asked = parser.parse_args()
    note = (
        "\n\nThe machine did other work meanwhile: the times are longer than on an idle one.\n" if asked.busy else "\n"
    )
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    atomic_write(README, f"{before}{BEGIN}\n{table(report_of(asked.run))}{note}{END}{after}")
    print(f"wrote the results of {asked.run} into {README.name}")


if __name__ == "__main__":
    main()
