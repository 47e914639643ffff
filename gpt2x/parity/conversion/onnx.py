"""The readers of ONNX graphs. Both compute in the dtype of the graph, which is float32."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2x.checkpoints.names import to_file
from gpt2x.parity.conversion.probe import Probe, Reading
from gpt2x.parity.measures import RELATIVE_TOLERANCE
from gpt2x.tokenizer import load_tokenizer


class OnnxPackage:
    """The package `onnx`: the tensors, and logits by its reference implementation of each operator in numpy."""

    name = package = "onnx"
    independent = True
    formats = ("onnx",)

    def tolerance(self, dtype: str, computed: torch.dtype) -> float:
        return RELATIVE_TOLERANCE[torch.float32]

    def read(self, folder: Path, weights: str, probe: Probe) -> Reading:
        import onnx
        from onnx.reference import ReferenceEvaluator

        onnx.checker.check_model(folder / weights)
        model = onnx.load(folder / weights)
        logits = _logits(ReferenceEvaluator(model), probe)  # whose copies of the tensors are then released
        names = to_file(probe.source.model)  # the other initializers are constants of the graph, such as sizes
        tensors = {
            each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
            for each in model.graph.initializer
            if each.name in names
        }
        tokenizer = load_tokenizer(folder)
        return Reading(
            tensors=tensors,
            logits=logits,
            same_ids=probe.same_ids(tokenizer),
            same_merges=probe.same_merges(tokenizer),
        )


class OnnxRuntime:
    """onnxruntime, on the CPU."""

    name = package = "onnxruntime"
    independent = True
    formats = ("onnx",)

    def tolerance(self, dtype: str, computed: torch.dtype) -> float:
        return RELATIVE_TOLERANCE[torch.float32]

    def read(self, folder: Path, weights: str, probe: Probe) -> Reading:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # its errors are raised, too
        session = onnxruntime.InferenceSession(folder / weights, options, providers=["CPUExecutionProvider"])
        return Reading(logits=_logits(session, probe))


def _logits(graph: Any, probe: Probe) -> Tensor:
    """[N, V]"""
    answers = [graph.run(["logits"], {"input_ids": ids.numpy()})[0] for ids in probe.batches]
    return torch.cat([torch.from_numpy(logits).flatten(0, 1) for logits in answers])
