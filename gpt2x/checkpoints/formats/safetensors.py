"""safetensors files (https://huggingface.co/docs/safetensors)."""

from pathlib import Path

from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.formats.format import check_number
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown


class Safetensors:
    """Files named *.safetensors."""

    name = "safetensors"

    def matches(self, path: Path) -> bool:
        return path.suffix == ".safetensors"

    def read(self, path: Path) -> Contents:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                check_number(len(names), path)
                return Contents(self.name, {name: file.get_tensor(name) for name in names})
        except SafetensorError as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{shown(path)}: truncated, or not a safetensors file ({error})") from None
