"""Text that may be shown on a terminal: control characters are visible, and do not control it."""

_C0 = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "\u2421"}
_C1 = {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
# Marks that reverse the direction of the text that follows (https://trojansource.codes).
_BIDIRECTIONAL = {
    code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_VISIBLE = _C0 | _C1 | _BIDIRECTIONAL


def visible(text: str) -> str:
    """The text with a visible sign in place of each control character; newlines and tabs stay.

    U+001B (escape) becomes U+241B, a picture of it. Characters without such a picture become their code, such as
    `\\x9b`. Each character is replaced on its own, so text can be shown piece by piece.
    """
    return text.translate(_VISIBLE)
