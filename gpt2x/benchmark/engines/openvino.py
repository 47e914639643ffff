"""OpenVINO: transformers' model, traced, with its KV cache as state of the compiled model.

The graph has the form that OpenVINO's CPU plugin replaces by its own attention: each cache is gathered by 32-bit row
numbers (`rows`, meant for beam search; here always 0 to B - 1), and a Concat then appends the new keys or values
(https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-request/stateful-models.html;
src/plugins/intel_cpu/src/transformations/cpu_opset/common/pass/stateful_sdpa_fusion.cpp).
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops
from openvino.passes import MakeStateful, Manager

_PRECISIONS = {"float32": ("FP32", "f32"), "bfloat16": ("BF16", "bf16"), "float16": ("FP16", "f16")}


def dtypes() -> set[str]:
    """As OpenVINO finds them on this CPU."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {dtype for dtype, (capability, _) in _PRECISIONS.items() if capability in capabilities}


class Engine:
    """The compiled model, which chooses the likeliest next token itself."""

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        precision = _PRECISIONS[dtype][1]
        compiled = openvino.Core().compile_model(
            _file(directory),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": precision,
                "KV_CACHE_PRECISION": precision,  # the default is 8 bits
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        self.request = compiled.create_infer_request()

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        self.request.reset_state()
        ids = np.array(prompts)  # [B, T]
        rows = np.array(range(len(prompts)), np.int32)
        new = []
        for _ in range(new_tokens):
            ids = self.request.infer([ids, rows])[0].copy()  # [B, 1]
            new.append(ids)
        tokens: list[list[int]] = np.concatenate(new, 1).tolist()  # [B, new_tokens]
        return tokens


def convert(directory: Path, dtype: str) -> None:
    """Writes the model in float32, once for all dtypes: it is the compiled model that computes in `dtype`."""
    if _file(directory).exists():
        return
    import torch
    from torch import Tensor
    from transformers import GPT2LMHeadModel

    class Step(torch.nn.Module):
        """One forward pass, with the caches as arguments and results."""

        def __init__(self) -> None:
            super().__init__()
            self.model = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32, local_files_only=True)

        def forward(self, ids: Tensor, rows: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
            """Ids [B, T], rows [B] and caches [B, H, S, D] -> the likeliest next tokens [B, 1] and the caches."""
            cache = _Cache([memory.index_select(0, rows) for memory in past])
            B, T = ids.shape
            S = cache.get_seq_length() + T
            positions = torch.arange(S - T, S)[None]  # [1, T]
            hidden = (torch.arange(S) > positions[..., None]).expand(B, 1, T, S)
            mask = torch.zeros(B, 1, T, S).masked_fill(hidden, torch.finfo(torch.float32).min)
            logits = self.model(
                ids, position_ids=positions, past_key_values=cache, attention_mask=mask, logits_to_keep=1
            ).logits  # [B, 1, V]
            return logits.argmax(-1), *cache.memories

    class _Cache:
        """The methods of a cache that transformers' GPT-2 calls."""

        def __init__(self, memories: list[Tensor]) -> None:
            self.memories = memories  # keys and values of the first layer, of the second, ...

        def get_seq_length(self) -> int:
            return self.memories[0].shape[2]

        def update(self, k: Tensor, v: Tensor, layer: int, *_: Any, **__: Any) -> list[Tensor]:
            """Appends k and v; returns the whole. Versions of transformers differ in what else they pass."""
            pair = slice(2 * layer, 2 * layer + 2)
            self.memories[pair] = [torch.cat(two, 2) for two in zip(self.memories[pair], (k, v), strict=True)]
            return self.memories[pair]

    step = Step().eval()
    config = step.model.config
    H, D = config.n_head, config.n_embd // config.n_head
    B, T = 2, 3  # sizes of the example; other sizes work as well
    example = (torch.zeros(B, T, dtype=torch.long), torch.arange(B, dtype=torch.int32))
    with torch.no_grad():
        past = [torch.zeros(B, H, T, D) for _ in range(2 * config.n_layer)]
        model = openvino.convert_model(step, example_input=(*example, *past))
    openvino.save_model(_stateful(model, H, D), _file(directory), compress_to_fp16=False)


def _stateful(model: openvino.Model, H: int, D: int) -> openvino.Model:
    """The model with its caches turned from inputs and outputs into state, which is empty at first."""
    names = {}
    for i, (before, after) in enumerate(zip(model.inputs[2:], model.outputs[1:], strict=True)):
        before.get_node().set_partial_shape(openvino.PartialShape([-1, H, -1, D]))
        before.tensor.set_names({f"past.{i}"})
        after.tensor.set_names({f"present.{i}"})
        names[f"past.{i}"] = f"present.{i}"
    model.validate_nodes_and_infer_types()
    manager = Manager()
    manager.register_pass(MakeStateful(names))
    manager.run_passes(model)
    B = ops.gather(ops.shape_of(model.inputs[0]), [0], 0)
    shape = ops.concat([B, ops.constant(np.array([H, 0, D]))], 0)
    empty = ops.broadcast(ops.constant(np.float32(0)), shape)
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([empty])
    model.validate_nodes_and_infer_types()
    return model


def _file(directory: Path) -> Path:
    return directory / "openvino.xml"
