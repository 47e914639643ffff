"""gpt2x with decode.lookup, which is the faster the more a text repeats itself."""

from gpt2x.benchmark.engines import gpt2x
from gpt2x.benchmark.engines.gpt2x import dtypes

__all__ = ["Engine", "dtypes"]


class Engine(gpt2x.Engine):
    """gpt2x's engine, with lookup."""

    lookup = True
