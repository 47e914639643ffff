"""What was done to every tensor of a checkpoint: the rows of weights.csv, and one line that sums them up."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import hypot

import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.names import HEAD, WTE, Named, dtype_name, is_conv1d
from gpt2x.checkpoints.rows import Step, WeightRow

_DONE = {
    Step.RENAME: "renamed",
    Step.TRANSPOSE: "transposed",
    Step.MERGE: "merged with an adapter",
    Step.CUT: "cut to the vocabulary",
    Step.CAST: "cast",
    Step.ZERO: "zero, as the model has no biases",
}

_BLOCK = 1 << 18  # numbers that are measured at a time


@dataclass(frozen=True, eq=False)  # its hash is that of the object, as there are many rows
class Account:
    """What was done to the tensors of a checkpoint."""

    format: str = ""
    """What users call the format of the file."""
    rows: tuple[WeightRow, ...] = ()
    """None for random weights."""
    notes: tuple[str, ...] = ()
    """What users should know, in sentences without a full stop."""
    reads_alike: bool = False
    """Whether transformers reads the same files by its own rules: its names, its layout, and nothing to convert."""

    def cast_to(self, dtype: torch.dtype) -> "Account":
        """The same, where the tensors were then brought into this dtype."""

        def cast(row: WeightRow) -> WeightRow:
            is_cast = row.source is not None and row.name is not None and row.dtype != dtype_name(dtype)
            return (
                replace(row, done=f"{row.done} {Step.CAST}".lstrip()) if is_cast and Step.CAST not in row.done else row
            )

        return replace(self, rows=tuple(map(cast, self.rows)))

    @property
    def summary(self) -> str:
        """Such as '148 tensors: 148 renamed, 48 transposed, 12 buffers dropped, lm_head tied'."""
        steps = [Step(step) for row in self.rows if row.name != HEAD for step in row.done.split()]
        counts = {step: steps.count(step) for step in Step}
        parts = [f"{counts[step]} {words}" for step, words in _DONE.items() if counts[step]]
        if counts[Step.DROP]:
            parts.append(f"{counts[Step.DROP]} buffers dropped")
        n_tensors = sum(row.source is not None and row.name not in (None, HEAD) for row in self.rows)
        return f"{n_tensors} tensors: {', '.join([*parts, 'lm_head tied'])}"


def rows_of(
    contents: Contents, found: Named, tensors: Mapping[str, Tensor], linear: set[str], is_cut: bool, measure: bool
) -> Iterator[WeightRow]:
    """One row per tensor of the file, in its order.

    `tensors` are those of `found` in Hugging Face's layout, `linear` the full names of those that the file has as
    [out, in]; `is_cut` says whether the vocabulary was padded. With `measure`, the rows have norms and checksums.
    """
    names = {source: name for name, source in found.sources.items()}
    for source, stored in contents.tensors.items():
        name = names.get(source)
        steps = (
            [Step.DROP]
            if name is None
            else [*([Step.RENAME] if source != name else []), *contents.steps.get(source, ())]
        )
        if name is not None and is_conv1d(name) and name not in linear:
            steps.append(Step.TRANSPOSE)
        if is_cut and name in (WTE, HEAD):
            steps.append(Step.CUT)
        if name == HEAD:
            steps.append(Step.TIE)
        row = row_of(source, name, stored, contents.dtypes.get(source, dtype_name(stored.dtype)), tuple(steps))
        yield _measured(row, tensors[name] if name is not None else stored) if measure else row


def row_of(
    source: str | None, name: str | None, tensor: Tensor | None, dtype: str | None, steps: tuple[Step, ...]
) -> WeightRow:
    """The row without norm and checksum, which cost as much as reading the file."""
    shape = "x".join(map(str, tensor.shape)) if tensor is not None else None
    return WeightRow(source, name, shape, dtype, " ".join(steps), None, None)


def _measured(row: WeightRow, tensor: Tensor) -> WeightRow:
    """The row with the norm and the checksum of a tensor, which is in Hugging Face's layout."""
    digest, norm = hashlib.sha256(), 0.0
    whole = tensor if tensor.ndim else tensor[None]
    rows = max(1, _BLOCK * len(whole) // max(1, whole.numel()))
    for block in whole.split(rows):  # all rows together would be in memory twice, and in float64
        values = block.contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
        if values.is_floating_point():
            norm = hypot(norm, torch.linalg.vector_norm(values, dtype=torch.float64).item())
    return replace(row, norm=norm if tensor.is_floating_point() else None, sha256=digest.hexdigest())
