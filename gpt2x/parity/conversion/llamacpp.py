"""Asks llama.cpp for log-probabilities and for the tokens of texts. Needs no torch, as it runs in a process of its own.

Its server tells the probabilities of the next token only: it is asked once per position.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from gpt2x.errors import UserError

_LIKELIEST = 8


Answers = tuple["np.ndarray[Any, Any]", list[bool]]


def ask_in_process(
    file: Path, threads: int, vocab_size: int, rows: list[list[int]], texts: dict[str, list[int]]
) -> Answers:
    """Log-probabilities [N, V] in float32 for the N tokens of all rows, and per text whether it has these ids.

    Raises ImportError if xllamacpp is not installed, and UserError if llama.cpp ends its process.
    """
    from gpt2x.llamacpp import start_server  # noqa: F401

    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_ask, file, threads, vocab_size, rows, texts).result()
    except BrokenProcessPool:
        raise UserError("llama.cpp has ended its process while it read the file") from None


def _ask(file: Path, threads: int, vocab_size: int, rows: list[list[int]], texts: dict[str, list[int]]) -> Answers:
    from gpt2x.llamacpp import start_server

    server = start_server(file, 1, 1 + max(map(len, (*rows, *texts.values()))), threads, exact=True)
    prompts = [row[: i + 1] for row in rows for i in range(len(row))]
    found = np.full((len(prompts), vocab_size), np.nan, np.float32)
    for i, prompt in enumerate(prompts):
        _, likeliest = _next(server, [prompt], vocab_size)
        for id, logprob in likeliest:
            found[i, id] = logprob
    # The server does not show the tokens of a text: they are the same if their number is, and what follows them.
    same = [_next(server, text, _LIKELIEST) == _next(server, [ids], _LIKELIEST) for text, ids in texts.items()]
    return found, same


def _next(server: Any, prompt: str | list[list[int]], n: int) -> tuple[int, list[tuple[int, float]]]:
    """The number of tokens of a prompt, and the n likeliest tokens after it, with their log-probabilities."""
    answer = server.handle_completions(
        {
            "prompt": prompt,
            "max_tokens": 1,
            "logprobs": n,
            # It answers nothing after the end of the text, or a part of a character. The probabilities are those of
            # the model, without this bias.
            "logit_bias": [["a", 1e6]],
            "cache_prompt": False,
        }
    )
    if "choices" not in answer:
        raise UserError(f"llama.cpp: {answer.get('message', answer)}")
    likeliest = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return answer["usage"]["prompt_tokens"], [(each["id"], each["logprob"]) for each in likeliest]
