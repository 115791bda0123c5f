"""Which licence a model may carry that was made from a base and from text, each with a licence of its own.

Whether weights are a work derived from the text they learned from is not settled anywhere; this takes the careful side:
what a licence asks of derived works is asked of the model. No legal advice.
"""

import re
from collections.abc import Sequence

from langgraft.corpus.card import HUB_LICENSES, hub_license
from langgraft.errors import ModelError

# Licences of models with terms of their own, by their start: they stay with every model made from one.
OWN_TERMS = ("llama", "gemma", "openrail", "bigscience", "creativeml", "deepfloyd", "apple-", "qwen", "tongyi")
COPYLEFT = frozenset(
    ("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "gfdl", "odbl", "cdla-sharing-1.0")
)
# What may be put under what: the later version, and CC BY-SA 4.0 under GPL 3.0.
_LATER = {
    "cc-by-sa-3.0": ("cc-by-sa-4.0", "gpl-3.0"),
    "cc-by-sa-4.0": ("gpl-3.0",),
    "cc-by-nc-sa-2.0": ("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    "cc-by-nc-sa-3.0": ("cc-by-nc-sa-4.0",),
    "lgpl-2.1": ("lgpl-3.0", "gpl-2.0", "gpl-3.0"),
    "lgpl-3.0": ("gpl-3.0",),
}
FORCE = "give the licence with --license (publish.license), and --force if you know better than this table"


def _noncommercial(name: str) -> bool:
    return name.startswith("cc-by-nc")


def _share_alike(name: str) -> bool:
    return name in COPYLEFT or bool(re.match(r"cc-by-(nc-)?sa", name))


def _own_terms(name: str) -> bool:
    return name.startswith(OWN_TERMS)


def model_license(base: str, data: Sequence[str]) -> tuple[str, str]:
    """`(licence, why)` of a model, as ids of the hub, from the licence of its base and those of its text.

    Raises:
        ModelError: a licence is unknown, forbids derived works, or two of them cannot be kept at once.
    """
    base = base if _own_terms(base) else hub_license(base)
    texts = sorted({hub_license(name) for name in data})
    ways = {"the base's licence": "with --base-license (publish.base_license)", "the licence of some text": "where the "
            "recipe names that text (`license`)"}  # fmt: skip
    for what, name in (("the base's licence", base), *(("the licence of some text", name) for name in texts)):
        if name in ("unknown", "other"):
            how = f"name it {ways[what]}," if name == "unknown" else "read it, then"
            raise ModelError(f"{what} is {name}, so the model's cannot be derived; {how} or {FORCE}")
        if "-nd" in name:
            raise ModelError(f"{what} is {name}, which allows no derived works; leave it out, or {FORCE}")
    shares = [name for name in (base, *texts) if _share_alike(name)]
    limits = [name for name in (base, *texts) if _noncommercial(name)]
    if _own_terms(base):
        if shares or limits:
            raise _conflict(base, (shares or limits)[0])
        return base, f"the base's terms ({base}) stay with models made from it"
    if shares:
        return _shared(shares, limits, base)
    if limits:
        name = max(limits)
        return name, f"text or base under {name}: not for commercial use"
    return base, f"the base's; the text ({', '.join(texts) or 'none'}) asks for attribution at most"


def _conflict(one: str, other: str) -> ModelError:
    return ModelError(
        f"{one} and {other} cannot be kept by one model; leave out the text under one of them, or {FORCE}"
    )


def _shared(shares: Sequence[str], limits: Sequence[str], base: str) -> tuple[str, str]:
    """The one share-alike licence that all of them may be put under."""
    names = list(dict.fromkeys(shares))
    for name in names:
        others = [other for other in names if other != name and name not in _LATER.get(other, ())]
        if others:
            continue
        if limits and not _noncommercial(name):
            raise _conflict(name, limits[0])
        whose = "base" if name == base else "text"
        return name, f"{whose} under {name}, which asks the same of works made from it"
    raise _conflict(names[0], names[1])


def check_choice(choice: str, base: str, data: Sequence[str]) -> None:
    """Whether a licence that the user names is at least as strict as the one that follows from base and text.

    Unknown licences are the user's to know: only what is known is held against the choice.

    Raises:
        ModelError: the choice is no licence id of the hub, or drops what a licence asks for.
    """
    if choice not in HUB_LICENSES and not _own_terms(choice) and choice != "other":
        raise ModelError(f"--license {choice} is no licence id of the hub; use one such as apache-2.0, or `other`")
    known = [name for name in data if hub_license(name) not in ("unknown", "other")]
    known_base = base if _own_terms(base) or hub_license(base) not in ("unknown", "other") else "cc0-1.0"
    derived, why = model_license(known_base, known)
    strict = _share_alike(derived) or _own_terms(derived)
    fits = choice == derived or choice in _LATER.get(derived, ()) if strict else True
    if _noncommercial(derived) and not _noncommercial(choice):
        fits = False
    if not fits:
        raise ModelError(f"--license {choice} drops what {derived} asks for ({why}); use {derived}, or {FORCE}")
