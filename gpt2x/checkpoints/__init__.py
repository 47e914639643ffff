"""Finding, reading and writing weights. No other room of gpt2x opens a weights file."""
