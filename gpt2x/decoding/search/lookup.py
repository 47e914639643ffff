"""Prompt lookup decoding: what followed the same few tokens earlier in the text is a draft of what comes next.

One pass over all drafted tokens verifies them, so the text is the same as without drafts
(A. Saxena, "Prompt Lookup Decoding", https://github.com/apoorvumang/prompt-lookup-decoding, 2023; verifying
drafts: Leviathan et al., arXiv:2211.17192).
"""

_NGRAM = 3  # tokens that must repeat: after two, drafts are wrong too often to save time
_LONGEST = 15  # drafted tokens: with the token before them, 16 go through the model in one pass
_SHORTEST = 3  # a pass over 4 tokens takes hardly longer than a pass over one, so a wrong draft costs little
_LONGEST_PAUSE = 64  # steps without a draft, after drafts that were wrong


class Lookup:
    """Drafts for one text. Drafts get longer while they are right, and rarer while they are wrong."""

    def __init__(self) -> None:
        self.last: dict[tuple[int, ...], int] = {}  # n-gram -> position of the token that followed it last
        self.indexed = _NGRAM  # the tokens before this position are in `last`
        self.length = _SHORTEST
        self.pause = self.waiting = 0

    def draft(self, ids: list[int], room: int) -> list[int]:
        """Up to `room` tokens that may come next."""
        for position in range(self.indexed, len(ids)):
            self.last[tuple(ids[position - _NGRAM : position])] = position
        self.indexed = max(self.indexed, len(ids))
        if self.waiting:
            self.waiting -= 1
            return []
        at = self.last.get(tuple(ids[-_NGRAM:]))
        if at is None:
            return []
        period = len(ids) - at  # the draft repeats after this many tokens, because the text ends there
        return [ids[at + i % period] for i in range(min(self.length, room))]

    def learn(self, drafted: int, accepted: int) -> None:
        """Adapts to the result of a draft: how many tokens were drafted, and how many of them were right."""
        if accepted:
            self.pause = 0
            self.length = min(_LONGEST, max(_SHORTEST, 2 * accepted + 1))
        elif drafted:
            self.length = _SHORTEST
            self.pause = self.waiting = min(_LONGEST_PAUSE, 2 * self.pause + 1)
