"""Why a subject differs. Importing it never imports torch."""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What kind of mistake a cause is: by this, and not by its text, gpt2x.parity.suggesting finds how to mend it."""

    ACTIVATION = auto()
    GELU_CONSTANT = auto()
    """numbers: the wrong constant and the right one."""
    NORM = auto()
    """Another formula than that of LayerNorm."""
    NORM_EPS = auto()
    """numbers: the wrong epsilon."""
    NORM_VARIANCE = auto()
    NORM_BIAS = auto()
    BIAS = auto()
    """A bias that is missing in a linear layer."""
    MATRIX_LAYOUT = auto()
    SCALE = auto()
    QKV_ORDER = auto()
    """numbers: the order in which the thirds of c_attn are taken."""
    QKV_LAYOUT = auto()
    MASK_MISSING = auto()
    MASK_FILL = auto()
    MASK_DIAGONAL = auto()
    MASK_SIDE = auto()
    """The mask shows what it should hide."""
    MASK_USE = auto()
    SOFTMAX_AXIS = auto()
    HEADS_MERGED = auto()
    PROJECTION = auto()
    ROTATION = auto()
    """RoPE or ALiBi."""
    GROUPED_QUERIES = auto()
    NORMED_QUERIES = auto()
    GATED_MLP = auto()
    BRANCH = auto()
    """A branch of a block that adds what it is given."""
    NORMS_SWAPPED = auto()
    NORM_SKIPPED = auto()
    """ln_1 or ln_2 is not called, or both."""
    RESIDUAL = auto()
    """It is left out, or added twice."""
    BLOCK = auto()
    """The branches and norms of a block are connected in another way."""
    EMBEDDING = auto()
    EMBEDDING_SCALE = auto()
    POSITIONS = auto()
    POSITIONS_MISSING = auto()
    FINAL_NORM_SKIPPED = auto()
    NORM_TOO_MANY = auto()
    LAYER_ORDER = auto()
    LAYERS_UNCHAINED = auto()
    HEAD_BIAS = auto()
    """A bias of the head, which GPT-2 does not have."""
    LOGITS = auto()
    """What is done to the logits after the last module."""
    ROUNDING = auto()
    DROPOUT = auto()


@dataclass(frozen=True)
class Cause:
    """Why a subject differs."""

    text: str
    """In words, for people."""
    known: bool = True
    """False if no mistake explains the difference; the text then holds numbers, or nothing."""
    kind: Kind | None = None
    """None if it is no mistake in code that gpt2x knows: it is unknown, or in weights, or outside the model."""
    numbers: tuple[float, ...] = ()
    """The parameters of the mistake; see its kind."""

    def __str__(self) -> str:
        """The text of summary.csv and of the console."""
        if self.known:
            return self.text
        return f"unknown: {self.text}" if self.text else "unknown"
