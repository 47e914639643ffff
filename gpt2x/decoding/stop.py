"""Stop strings: texts that end a completion where they begin."""

from collections.abc import Callable, Sequence


class StopStrings:
    """Looks for the first of some strings in a text that grows token by token."""

    def __init__(self, strings: Sequence[str], decode: Callable[[list[int]], str]) -> None:
        self.strings = strings
        self.decode = decode
        # A token is a byte at least, so whatever ends in the last token has begun within as many.
        self.reach = max((len(string.encode()) for string in strings), default=0)

    def find(self, ids: list[int]) -> int | None:
        """Where the text of these new tokens, looked at after each of them, shall end; None if it goes on."""
        if not any(string in self.decode(ids[-self.reach :]) for string in self.strings):
            return None
        return self._first(self.decode(ids))

    def visible(self, text: str) -> int:
        """How much of a text that is still growing can be shown: up to what is a stop string, or may become one."""
        first = self._first(text)
        if first is not None:
            return first
        beginnings = (string[:n] for string in self.strings for n in range(1, len(string)))
        return len(text) - max((len(start) for start in beginnings if text.endswith(start)), default=0)

    def _first(self, text: str) -> int | None:
        return min((at for string in self.strings if (at := text.find(string)) >= 0), default=None)
