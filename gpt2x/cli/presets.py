"""Options and presets of the user's own: in the folder of --config-dir, or else in `conf` where the command starts."""

from collections.abc import Iterable
from pathlib import Path

from gpt2x.cli.help import groups
from gpt2x.cli.overrides import key_of
from gpt2x.errors import UserError
from gpt2x.paths import bundled, shown


def own_folder() -> str | None:
    """`conf`, if it is a folder with presets and not gpt2x's own; else None.

    Hydra looks for options there after gpt2x's own folder, so a config.yaml in it, of another project for example,
    is never read.
    """
    folder = Path("conf")
    has_presets = any((folder / "experiment").glob("*.yaml"))
    return str(folder) if has_presets and not folder.samefile(bundled("conf")) else None


def refuse_ambiguous(overrides: Iterable[str], folder: Path) -> None:
    """Raises UserError if the folder has another file for an option that an override chooses and gpt2x has, too."""
    for override in overrides:
        group = key_of(override)
        for name in {*override.partition("=")[2].split(",")}.intersection(groups().get(group, [])):
            file = Path(group, f"{name}.yaml")
            own = folder / file
            if own.is_file() and own.read_bytes() != (bundled("conf") / file).read_bytes():
                raise UserError(f"{group}={name}: gpt2x has an option of this name; rename {shown(own)}")
