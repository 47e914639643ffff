"""The architecture of a GPT-2, under Hugging Face's names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPT2Config:
    """The architecture of a GPT-2; the defaults are those of the 124M model.

    Source: https://github.com/openai/gpt-2/blob/master/src/model.py (default_hparams) and the
    published sizes of Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
    """

    vocab_size: int = 50257
    """Rows of wte: 256 bytes + 50,000 merges + <|endoftext|>."""
    n_positions: int = 1024
    """Rows of wpe: the longest context, in tokens."""
    n_embd: int = 768
    """Width of the residual stream, a multiple of n_head."""
    n_layer: int = 12
    """Number of blocks."""
    n_head: int = 12
    """Attention heads per block, each n_embd / n_head wide."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance in every LayerNorm."""
    dropout: float = 0.0
    """Dropout probability in training: after the embeddings, on the attention weights, and after each c_proj."""

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that are not positive, and for an n_embd that n_head does not divide."""
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
