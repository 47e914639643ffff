"""`sweep_prompts=FILE`: the prompts of a file as an axis of a sweep, with one job per prompt.

For Hydra, the axis is `prompts_file=FILE`, and all ids in the file as the values of `prompt_id`. So a prompt, whatever
characters it has, never becomes part of a command: each job reads its own from the file.
"""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from gpt2x.cli.quoting import hydra_quoted, without_interpolations
from gpt2x.errors import UserError
from gpt2x.paths import expanded
from gpt2x.prompts import STANDARD_INPUT, prompts_by_id

SWEEP_PROMPTS = "sweep_prompts"


def split_axis(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The override `sweep_prompts=FILE`, if it is given, and all others."""
    given = [override for override in overrides if _is_axis(override)]
    return (given[-1] if given else None), [override for override in overrides if not _is_axis(override)]


def _is_axis(override: str) -> bool:
    return override.partition("=")[0].lstrip("+") == SWEEP_PROMPTS


def axis_of(override: str) -> list[str]:
    """What Hydra sweeps for `sweep_prompts=FILE`: the file, and its ids in their order.

    Raises UserError if no file is named, or if it cannot be read as a prompts_file.
    """
    path = OverridesParser.create().parse_override(override).value()
    if not isinstance(path, str) or not path:
        raise UserError(f"{override}: name one file of prompts")
    if path == STANDARD_INPUT or not expanded(path, SWEEP_PROMPTS).is_file():
        raise UserError(f"{override}: no such file; the jobs read it again, so it cannot be standard input or a pipe")
    ids = ",".join(map(hydra_quoted, prompts_by_id(path)))
    return [without_interpolations(each) for each in (f"prompts_file={hydra_quoted(path)}", f"prompt_id={ids}")]
