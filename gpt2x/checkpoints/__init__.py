"""Finding, reading and writing weights; nothing else in gpt2x opens a weights file."""
