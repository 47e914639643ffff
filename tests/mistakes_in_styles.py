"""Puts each known mistake into models of three styles of code: validate must name it, and nothing else.

    python -m tests.mistakes_in_styles [MODELS] [SEED]

Without a number, all of them. pytest does not collect this file; tests/parity/test_mutants.py runs a few models.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2x.errors import UserError
from tests.mutate_models import Reference
from tests.subjects.mistakes import MISTAKES
from tests.subjects.slots import SLOTS, TARGETS

HERE = Path(__file__).parent / "subjects"


@dataclass(frozen=True)
class Broken:
    """A model with one known mistake."""

    cause: str
    style: str
    path: Path
    target: str
    text: str
    """The whole file with the mistake."""


def broken_models() -> Iterator[Broken]:
    """Each mistake in each of the styles. Raises ValueError if a file no longer has the text of a slot."""
    for slot, mistakes in MISTAKES.items():
        for cause, expression in mistakes.items():
            for style, pairs in SLOTS[slot].items():
                file, _, name = TARGETS[style].partition(":")
                text = (HERE / file).read_text()
                for old, new in pairs:
                    if old not in text:
                        raise ValueError(f"{file} has no longer the text {old!r}")
                    text = text.replace(old, new.replace("{}", expression))
                yield Broken(cause.strip(), style, HERE / file, f"{HERE / file}:{name}", text)


def outcome(broken: Broken, reference: Reference) -> tuple[str, str]:
    """`named`, `also named` with another cause, `unknown`, `wrong`, or `missed`; and what validate says."""
    try:
        found = reference.validate(broken.path, broken.target, broken.text)
    except UserError as error:
        return "refused", str(error)
    causes = [each.cause.partition(" (in ")[0] for each in found.causes if each.known]
    said = "; ".join(f"{each.sites}: {each.cause if each.known else 'unknown'}" for each in found.causes)
    if found.passed:
        return "missed", said
    if broken.cause in causes:
        return "named" if set(causes) == {broken.cause} else "also named", said
    return "wrong" if causes else "unknown", said


def check(models: Iterable[Broken], folder: Path) -> Counter[str]:
    """Counts of the outcomes; what is not named is printed."""
    reference, counts = Reference(0, folder), Counter[str]()
    for broken in models:
        what, said = outcome(broken, reference)
        counts[what] += 1
        if what != "named":
            print(f"{what}: {broken.style}: {broken.cause}\n    {said}", flush=True)
    return counts


def main() -> None:
    models = list(broken_models())
    if len(sys.argv) > 1:
        models = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0).sample(models, int(sys.argv[1]))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = check(models, Path(folder))
    print(f"{len(models)} models in {time.monotonic() - start:.0f} s: {dict(counts)}")
    sys.exit(any(counts[what] for what in ("wrong", "missed")))


if __name__ == "__main__":
    main()
