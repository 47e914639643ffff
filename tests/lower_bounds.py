"""Prints pip constraints: the lowest version of each requirement in pyproject.toml, except torch (see Makefile)."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def lower_bounds(pyproject: str) -> dict[str, str]:
    """The lowest version of each requirement of the package and of its extras.

    Raises ValueError for a requirement without a lower bound, because pip would then choose the newest version.
    """
    project = tomllib.loads(pyproject)["project"]
    bounds = {}
    for requirement in sum(project["optional-dependencies"].values(), start=project["dependencies"]):
        if requirement.startswith(project["name"]):  # an extra that contains another one
            continue
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)(,.*)?", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound of the form name>=version")
        bounds[match[1]] = match[2]
    return bounds


if __name__ == "__main__":
    for name, version in lower_bounds(PYPROJECT.read_text(encoding="utf-8")).items():
        if name != "torch":
            print(f"{name}=={version}")
