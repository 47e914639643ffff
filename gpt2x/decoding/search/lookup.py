"""Prompt lookup decoding: what followed the same few tokens earlier in the text is a guess at what comes next.

The guess costs one pass over several tokens, and the pass tells how much of it is right, so nothing is lost
(A. Saxena, "Prompt Lookup Decoding", https://github.com/apoorvumang/prompt-lookup-decoding, 2023; verifying
drafts: Leviathan et al., arXiv:2211.17192).
"""

_NGRAM = 3  # tokens that must repeat: after two, guesses are wrong too often to pay
_LONGEST = 15  # drafted tokens: with the one before them, 16 go through the model at once
_SHORTEST = 3  # a pass over 4 tokens takes hardly longer than over one, so that a wrong guess costs little
_PATIENCE = 64  # most tokens that pass without a guess, after guesses that were wrong


class Lookup:
    """Drafts for one text. Guesses get longer while they are right, and rarer while they are wrong."""

    def __init__(self) -> None:
        self.last: dict[tuple[int, ...], int] = {}  # n-gram -> where its last follower stands
        self.indexed = _NGRAM  # positions up to this one are in `last`
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
        period = len(ids) - at  # of a text that goes round: past its end the guess goes on with itself
        return [ids[at + i % period] for i in range(min(self.length, room))]

    def learn(self, drafted: int, accepted: int) -> None:
        """What became of a draft."""
        if accepted:
            self.pause = 0
            self.length = min(_LONGEST, max(_SHORTEST, 2 * accepted + 1))
        elif drafted:
            self.length = _SHORTEST
            self.pause = self.waiting = min(_PATIENCE, 2 * self.pause + 1)
