"""gpt2x: run, check and sample from GPT-2. Importing this package never imports torch."""

__version__ = "0.1.0"
