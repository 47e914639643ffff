"""CTranslate2 (https://opennmt.net/CTranslate2/guides/transformers.html)."""

import json
from pathlib import Path

import ctranslate2


def dtypes() -> set[str]:
    return ctranslate2.get_supported_compute_types("cpu")


def convert(directory: Path, dtype: str) -> None:
    converter = ctranslate2.converters.TransformersConverter(str(directory))
    converter.convert(str(_folder(directory, dtype)), quantization=dtype)


class Engine:
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
            end_token=[len(self.tokens)],  # an id that no token has: nothing ends a text before max_length
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]


def _folder(directory: Path, dtype: str) -> Path:
    return directory / f"ctranslate2-{dtype}"
