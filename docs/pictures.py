"""Pictures of a page for the docs: desktop in light and dark, a phone, and print, as PNGs.

Needs playwright with Chromium, and for print `pypdfium2`:
`python docs/pictures.py runs/cantonese-smollm2/report.html docs/report`.
"""

import argparse
import shutil
from pathlib import Path

SHAPES = {
    # name -> (width, height, scheme, device pixels)
    "": (1100, 1560, "light", 1.0),
    "-dark": (1100, 1560, "dark", 1.0),
    "-phone": (390, 2000, "light", 1.0),
}


def pictures(page: Path, out: str, *, whole: bool = False, only: str | None = None) -> list[Path]:
    """Write `out` + shape + `.png` for every shape and `out-print.png`; the whole page if `whole`."""
    from playwright.sync_api import sync_playwright

    made = []
    with sync_playwright() as play:
        # The system's own Chromium where there is one; playwright's else.
        own = shutil.which("chromium") or shutil.which("google-chrome")
        browser = play.chromium.launch(executable_path=own, args=["--no-sandbox", "--disable-gpu"])
        for name, (width, height, scheme, scale) in SHAPES.items():
            if only is not None and name != only:
                continue
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
            )
            tab = context.new_page()
            tab.goto(page.resolve().as_uri())
            wide = tab.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                print(f"{page}: {wide} px wide on a screen of {width}")
            made.append(Path(f"{out}{name}.png"))
            tab.screenshot(path=str(made[-1]), full_page=whole)
            context.close()
        if only in (None, "-print"):
            tab = browser.new_page()
            tab.goto(page.resolve().as_uri())
            pdf = Path(f"{out}-print.pdf")
            tab.pdf(path=str(pdf), format="A4", print_background=True, margin=dict.fromkeys(SIDES, "14mm"))
            made += _printed(pdf, out, whole)
        browser.close()
    return made


SIDES = ("top", "right", "bottom", "left")


def _printed(pdf: Path, out: str, whole: bool) -> list[Path]:
    """The first pages of a PDF as PNGs (all of them if `whole`)."""
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf)
    made = []
    for number in range(len(document) if whole else 1):
        made.append(Path(f"{out}-print{number or ''}.png"))
        document[number].render(scale=1.2).to_pil().save(made[-1])
    document.close()
    pdf.unlink()
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--only")
    given = parser.parse_args()
    for path in pictures(given.page, given.out, whole=given.whole, only=given.only):
        print(path, f"{path.stat().st_size / 1000:.0f} kB")
