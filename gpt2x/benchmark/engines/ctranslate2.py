"""CTranslate2 (https://opennmt.net/CTranslate2/guides/transformers.html)."""

import json
from pathlib import Path

import ctranslate2


def dtypes() -> set[str]:
    """As CTranslate2 finds them on this CPU."""
    found: set[str] = ctranslate2.get_supported_compute_types("cpu")
    return found


def convert(directory: Path, dtype: str) -> None:
    """Writes the model in CTranslate2's format, in `dtype`."""
    converter = ctranslate2.converters.TransformersConverter(str(directory))
    converter.convert(str(_folder(directory, dtype)), quantization=dtype)


class Engine:
    """ctranslate2.Generator, which takes and returns tokens as text."""

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        folder = _folder(directory, dtype)
        self.tokens = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self.generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type=dtype, inter_threads=1, intra_threads=threads
        )

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        results = self.generator.generate_batch(
            [[self.tokens[id] for id in prompt] for prompt in prompts],
            beam_size=1,
            max_length=new_tokens,
            end_token=[len(self.tokens)],  # no token has this id, so that every text reaches max_length
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]


def _folder(directory: Path, dtype: str) -> Path:
    return directory / f"ctranslate2-{dtype}"
