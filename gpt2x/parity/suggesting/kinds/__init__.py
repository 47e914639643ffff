"""The changes that may mend a cause, in the order in which they are tried. To add one, add an entry to FIXES."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gpt2x.parity.suggesting.code import Change, Code
from gpt2x.parity.suggesting.kinds import activation, attention, block, dropout, linear, model, norm


@dataclass(frozen=True)
class Fix:
    """A kind of change."""

    causes: str
    """A regular expression for the beginning of the causes that it may mend."""
    changes: Callable[[Code], Iterator[Change]]
    """All changes of this kind in some code, the most likely first."""


FIXES = (
    Fix(r"tanh GELU with ", activation.to_right_constants),
    Fix(r".* instead of tanh( GELU)?\b|no activation", activation.to_tanh_gelu),
    Fix(r"LayerNorm eps ", norm.to_right_eps),
    Fix(r"LayerNorm with the unbiased variance", norm.to_biased_variance),
    Fix(r"missing bias: LayerNorm", norm.to_norm_with_bias),
    Fix(r"LayerNorm divides|RMS norm|LayerNorm without|LayerNorm over|missing weight", norm.to_layer_norm),
    Fix(r"missing bias$", linear.to_bias),
    Fix(r"attention (scores not )?(scaled|multiplied)", attention.to_right_scale),
    Fix(r"q, k and v in another order", attention.to_right_order),
    Fix(r"causal mask off by one", attention.to_right_diagonal),
    Fix(r"causal mask filled", attention.to_infinite_fill),
    Fix(r"causal mask missing", attention.to_causal),
    Fix(r"causal mask (inverted|the wrong way)", attention.to_other_way_round),
    Fix(r"softmax over the wrong axis", attention.to_last_axis),
    Fix(r"heads merged without", attention.to_transposed_heads),
    Fix(r"dropout active", dropout.to_training_only),
    Fix(r".* rounded to ", dropout.to_full_precision),
    Fix(r"norms swapped|ln_[12] used for both", block.to_right_norms),
    Fix(r"norms? skipped: ln_[12]", block.to_norm_before),
    Fix(r"residuals? (left out|added twice)", block.to_residual),
    Fix(
        r"post-norm|norm after each|residuals? |attention and MLP|MLP before|attention left|MLP left",
        block.to_gpt2_block,
    ),
    Fix(r"norm skipped: ln_f", model.to_final_norm),
    Fix(r"ln_f applied twice|norm of the embeddings", model.to_one_final_norm),
    Fix(r"positions shifted", model.to_positions_from_zero),
    Fix(r"position embedding left out", model.to_position_embedding),
    Fix(r".*(embeddings? )(scaled|divided) by sqrt", model.to_unscaled_embeddings),
    Fix(r"layers (out of order|skipped)", model.to_layers_in_order),
    Fix(r"layers not chained", model.to_chained_layers),
    Fix(r"log-probabilities|probabilities|logits soft|logits scaled|a bias is added|.*lm_head\.bias", model.to_logits),
)


def changes_for(code: Code) -> Iterator[Change]:
    """The changes that may mend the code's cause."""
    for fix in FIXES:
        if re.match(fix.causes, code.cause):
            yield from fix.changes(code)
