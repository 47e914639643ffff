"""Draws the README's picture, .github/validate.svg, from a real `gpt2x task=validate` in this directory."""

import sys

from rich.console import Console

from gpt2x.cli import main as cli
from gpt2x.reports import console

console.out = Console(record=True, width=100, force_terminal=True, highlight=False)
sys.argv = ["gpt2x", "task=validate"]
code = cli.main()
console.out.save_svg(".github/validate.svg", title="python -m gpt2x task=validate")
sys.exit(code)
