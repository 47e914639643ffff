"""Words as bash reads them."""

import shlex


def shell_quoted(word: str) -> str:
    """A word for bash, in one line. Control characters and repeated spaces, which a message changes, are escaped."""
    if word.isprintable() and "  " not in word:
        return shlex.quote(word)
    return "$'" + "".join(map(_ansi, ("", *word), word)) + "'"


def _ansi(before: str, character: str) -> str:
    r"""A character inside of `$'...'`, after another one: `\n`, `\xe2`, or itself."""
    if character in "\\'":
        return f"\\{character}"
    if character == "\n":
        return r"\n"
    if character.isprintable() and not before == character == " ":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors="surrogateescape"))
