"""The changes that may mend a cause, in the order in which they are tried. To add one, add an entry to FIXES."""

from collections.abc import Callable, Iterator

from gpt2x.parity.causes import Kind
from gpt2x.parity.suggesting.code import Change, Code
from gpt2x.parity.suggesting.kinds import activation, attention, block, dropout, linear, model, norm

FIXES: dict[Kind, Callable[[Code], Iterator[Change]]] = {
    Kind.ACTIVATION: activation.to_tanh_gelu,
    Kind.GELU_CONSTANT: activation.to_right_constants,
    Kind.NORM: norm.to_layer_norm,
    Kind.NORM_EPS: norm.to_right_eps,
    Kind.NORM_VARIANCE: norm.to_biased_variance,
    Kind.NORM_BIAS: norm.to_norm_with_bias,
    Kind.BIAS: linear.to_bias,
    Kind.SCALE: attention.to_right_scale,
    Kind.QKV_ORDER: attention.to_right_order,
    Kind.MASK_MISSING: attention.to_causal,
    Kind.MASK_FILL: attention.to_infinite_fill,
    Kind.MASK_DIAGONAL: attention.to_right_diagonal,
    Kind.MASK_SIDE: attention.to_other_way_round,
    Kind.SOFTMAX_AXIS: attention.to_last_axis,
    Kind.HEADS_MERGED: attention.to_transposed_heads,
    Kind.NORMS_SWAPPED: block.to_right_norms,
    Kind.NORM_SKIPPED: block.to_norm_before,
    Kind.RESIDUAL: block.to_residual,
    Kind.BLOCK: block.to_gpt2_block,
    Kind.EMBEDDING_SCALE: model.to_unscaled_embeddings,
    Kind.POSITIONS: model.to_positions_from_zero,
    Kind.POSITIONS_MISSING: model.to_position_embedding,
    Kind.FINAL_NORM_SKIPPED: model.to_final_norm,
    Kind.NORM_TOO_MANY: model.to_one_final_norm,
    Kind.LAYER_ORDER: model.to_layers_in_order,
    Kind.LAYERS_UNCHAINED: model.to_chained_layers,
    Kind.HEAD_BIAS: linear.to_no_bias,
    Kind.LOGITS: model.to_logits,
    Kind.ROUNDING: dropout.to_full_precision,
    Kind.DROPOUT: dropout.to_training_only,
}
"""Kind of cause -> all changes in some code that may mend it, the most likely first."""


def changes_for(code: Code) -> Iterator[Change]:
    """The changes that may mend the code's cause."""
    propose = FIXES.get(code.cause.kind) if code.cause.kind is not None else None
    return iter(()) if propose is None else propose(code)
