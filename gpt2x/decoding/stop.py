"""Stop strings: a completion ends before the first of them."""

from collections.abc import Callable, Sequence


class StopStrings:
    """Finds the first of some strings in a text that grows token by token."""

    def __init__(self, strings: Sequence[str], decode: Callable[[list[int]], str]) -> None:
        self.strings = strings
        self.decode = decode
        # A token has at least one byte, so a string that ends in the last token begins within this many tokens.
        self.reach = max((len(string.encode()) for string in strings), default=0)

    def find(self, ids: list[int]) -> int | None:
        """The length in characters at which the text of these new tokens ends; None if it goes on.

        It must be called after each new token, so that a stop string can only end in the last one.
        """
        if not any(string in self.decode(ids[-self.reach :]) for string in self.strings):
            return None
        return self._first(self.decode(ids))

    def visible(self, text: str) -> int:
        """How many characters of a growing text can be shown: those before a stop string, or what may become one."""
        first = self._first(text)
        if first is not None:
            return first
        beginnings = (string[:n] for string in self.strings for n in range(1, len(string)))
        return len(text) - max((len(start) for start in beginnings if text.endswith(start)), default=0)

    def _first(self, text: str) -> int | None:
        return min((at for string in self.strings if (at := text.find(string)) >= 0), default=None)
