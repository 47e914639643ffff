"""Shell completion: what Hydra's plugins need to complete `gpt2x` and `python -m gpt2x`."""

import os
import re
import sys

_PYTHON = r"^\s*\S*python[\d.]*\s+-m\s+gpt2x(?=\s|$)"
# Hydra's own code for bash completes `python FILE.py` only.
_BASH_FOR_PYTHON = """
_gpt2x_of_python()
{
    [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == gpt2x ]] || return
    local choices
    choices=$(COMP_LINE=$COMP_LINE "${COMP_WORDS[0]}" -m gpt2x -sc query=bash)
    COMPREPLY=($(compgen -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o nospace -o bashdefault -o default -F _gpt2x_of_python python python3
"""


def prepare_completion(request: str) -> None:
    """Has Hydra see the command `gpt2x`, whichever way gpt2x was started, and whichever command line is completed.

    `request` is what follows `-sc`. The code to install for `python -m gpt2x` is printed here.
    """
    if request == "install=bash" and sys.argv[0].endswith("__main__.py"):
        print(_BASH_FOR_PYTHON)
    sys.argv[0] = "gpt2x"
    if "COMP_LINE" in os.environ:
        os.environ["COMP_LINE"] = re.sub(_PYTHON, "gpt2x", os.environ["COMP_LINE"])
