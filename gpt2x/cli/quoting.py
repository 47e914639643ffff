"""Settings as a user types them: quoted for Hydra, and then for the shell."""

import re

from gpt2x.shell import shell_quoted

TEXTS = ("prompt", "prompt_id", "task.gen_prompt", "decode.stop", "notes")
"""Settings whose value is free text."""

_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


def setting_word(key: str, text: str) -> str:
    """`key=text` as one word for the shell; Hydra reads exactly this text as the value."""
    return shell_quoted(f"{key}={text if key not in TEXTS and _PLAIN.fullmatch(text) else hydra_quoted(text)}")


def hydra_quoted(text: str) -> str:
    """A text as a quoted value of Hydra's grammar: a backslash counts as an escape only where quotes follow it."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), text) + '"'


def without_interpolations(override: str) -> str:
    r"""The override of a text in which `${` is text, not an interpolation: `\${`, after twice as many backslashes."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", override)


def as_given(override: str) -> str:
    """The override from which `without_interpolations` has made this one."""
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda match: match[1][::2] + "${", override)
