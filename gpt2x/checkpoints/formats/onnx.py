"""ONNX files (https://onnx.ai), which are written (gpt2x/checkpoints/exporting/onnx.py) and not read."""

from pathlib import Path

from gpt2x.checkpoints.contents import Contents
from gpt2x.errors import UserError
from gpt2x.paths import shown


class Onnx:
    """Files named *.onnx. They hold a graph: its initializers may have any name and layout."""

    name = "ONNX"

    def matches(self, path: Path) -> bool:
        return path.suffix == ".onnx"

    def read(self, path: Path) -> Contents:
        raise UserError(
            f"{shown(path)}: gpt2x writes ONNX files, but does not read them; give the checkpoint that it was made "
            "from, with weights.path=FILE"
        )
