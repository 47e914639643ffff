"""Devices and dtypes of this machine, by name."""

from typing import TYPE_CHECKING, Any

from gpt2x.errors import UserError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> "torch.device":
    """The device that the setting `device` names. Raises UserError if this machine has no such device."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise UserError(f"device={name}: this machine, or this build of torch, has none; use device=cpu or device=auto")
    return torch.device(name)


def find_dtype(name: str) -> "torch.dtype":
    """The dtype that the setting `dtype` names."""
    import torch

    return getattr(torch, name)


def has_fast_bf16(device: "torch.device") -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not every torch from 2.9 on has this function.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
