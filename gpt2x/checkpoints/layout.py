"""Which of two layouts the matrices of a file have, by what is certain; never by a guess."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gpt2x.checkpoints.contents import Layout
from gpt2x.checkpoints.names import is_conv1d
from gpt2x.errors import UserError
from gpt2x.paths import shown

# Matrices that are not square -> the ratio of outputs to inputs.
_RATIOS = {"attn.c_attn.weight": 3.0, "mlp.c_fc.weight": 4.0, "mlp.c_proj.weight": 0.25}


def layouts(tensors: Mapping[str, Tensor], fixed: Layout | None, given: str | None, path: Path) -> dict[str, Layout]:
    """Full name of each matrix of c_attn, c_proj and c_fc -> its layout.

    It is the one that the format fixes, else the one that the shape proves, and for square matrices the one that all
    others of the file have. `given` is the setting weights.layout, for square matrices. Raises UserError, which names
    the setting, where they remain ambiguous.
    """
    matrices = [name for name in tensors if is_conv1d(name)]
    if fixed is not None:
        return dict.fromkeys(matrices, fixed)
    proven = {name: found for name in matrices if (found := _proven(name, tensors[name])) is not None}
    kinds = set(proven.values())
    square = Layout(given) if given is not None else kinds.pop() if len(kinds) == 1 else None
    if square is None and proven.keys() != set(matrices):
        raise UserError(f"{shown(path)}: {_why(proven, tensors)}; add weights.layout=conv1d or weights.layout=linear")
    return {name: proven.get(name, square or Layout.CONV1D) for name in matrices}


def _proven(name: str, tensor: Tensor) -> Layout | None:
    """The layout that the shape of a matrix proves; None for a square one, and for a shape that no layout has."""
    wanted = next((ratio for site, ratio in _RATIOS.items() if name.endswith(site)), None)
    if wanted is None or tensor.ndim != 2 or 0 in tensor.shape:
        return None
    return {wanted: Layout.CONV1D, 1 / wanted: Layout.LINEAR}.get(tensor.shape[1] / tensor.shape[0])


def _why(proven: Mapping[str, Layout], tensors: Mapping[str, Tensor]) -> str:
    """Why the square matrices are ambiguous, with the matrix that has another layout than most."""
    counts = {layout: list(proven.values()).count(layout) for layout in Layout}
    if not proven:
        return "no matrix of the file shows by its shape whether it is [in, out] (Conv1D) or [out, in] (nn.Linear)"
    rare = min(Layout, key=lambda layout: (counts[layout], layout is Layout.CONV1D))
    odd = next(name for name, layout in proven.items() if layout is rare)
    words = {Layout.CONV1D: "[in, out]", Layout.LINEAR: "[out, in]"}
    other = next(layout for layout in Layout if layout is not rare)
    shape = list(tensors[odd].shape)
    return (
        f"{odd} has shape {shape}, which is {words[rare]}, but {counts[other]} other matrices are {words[other]}, with "
        f"shape {shape[::-1]} here: it is transposed, or the orientation of square matrices is not known"
    )
