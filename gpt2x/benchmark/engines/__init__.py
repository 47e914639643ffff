"""A module an engine, named like the package it drives, imported in that engine's worker only.

Each has `dtypes()`, the names of those it runs in on this machine, and a class `Engine(directory, dtype, threads)`
around the weights of a Hugging Face directory, whose `generate(prompts, new_tokens)` continues prompts of equal
length greedily, by exactly new_tokens, whatever they are. An engine with a format of its own has `convert(directory,
dtype)`, which writes it into the directory. Those that others are compared with have `margin(ids)`: by how
much the likeliest next token leads, in logits.
"""
