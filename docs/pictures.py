"""Pictures of a page for the docs: desktop in light and dark, a phone, and print, as PNGs.

Needs playwright with Chromium, Pillow, and for print pypdfium2:
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


def pictures(
    page: Path, out: str, *, whole: bool = False, only: str | None = None, at: str | None = None
) -> list[Path]:
    """Write `out` + shape + `.png` for every shape and `out-print.png`.

    The whole page if `whole`; only one shape if `only`; from the element `at`, a CSS selector, on.
    """
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
            if at is not None:
                tab.locator(at).evaluate("element => window.scrollTo(0, element.getBoundingClientRect().top - 24)")
            made.append(Path(f"{out}{name}.png"))
            tab.screenshot(path=str(made[-1]), full_page=whole)
            _smaller(made[-1])
            context.close()
        if only in (None, "-print"):
            tab = browser.new_page()
            tab.goto(page.resolve().as_uri())
            pdf = Path(f"{out}-print.pdf")
            tab.pdf(path=str(pdf), format="A4", print_background=True, margin=dict.fromkeys(SIDES, "14mm"))
            made += _printed(pdf, out, whole)
        browser.close()
    return made


def _smaller(path: Path) -> None:
    """The same picture in 256 colours, which such pages hardly exceed."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


SIDES = ("top", "right", "bottom", "left")


def _printed(pdf: Path, out: str, whole: bool) -> list[Path]:
    """The first pages of a PDF as PNGs (all of them if `whole`)."""
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf)
    made = []
    for number in range(len(document) if whole else 1):
        made.append(Path(f"{out}-print{number or ''}.png"))
        document[number].render(scale=1.2).to_pil().save(made[-1])
        _smaller(made[-1])
    document.close()
    pdf.unlink()
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--only", help="-dark, -phone, -print, or '' for the desktop")
    parser.add_argument("--at", help="CSS selector of what stands at the top")
    given = parser.parse_args()
    for path in pictures(given.page, given.out, whole=given.whole, only=given.only, at=given.at):
        print(path, f"{path.stat().st_size / 1000:.0f} kB")
