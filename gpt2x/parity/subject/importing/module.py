"""A module whose statements are run when one of its names is asked for, and only those that this name needs."""

import ast
import builtins
import importlib
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt2x.memory import is_out_of_memory
from gpt2x.parity.subject.code import SubjectError, in_one_line
from gpt2x.parity.subject.importing.placeholder import Placeholder, stand_in_for
from gpt2x.parity.subject.importing.statements import Statement, imported_modules, read_source

BeforeImport = Callable[[str], None]
"""Called with the absolute name of each module before code imports it."""

AfterBinding = Callable[[dict[str, Any], str, Iterable[str]], None]
"""Called after a statement has given a name a value: with the namespace, the name, and all names of the file."""


class LazyModule(ModuleType):
    """A module of a user's: `module.name` runs the statements of its file that `name` needs, once."""

    __gpt2x__: "LazyCode"  # one name, as all others belong to the user's code

    def __getattr__(self, name: str) -> Any:
        code = vars(self).get("__gpt2x__")
        if code is None or not code.provide(name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        return vars(self)[name]

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *self.__gpt2x__.bound})


class LazyCode:
    """The statements of a file, and which of them have been run in the module's namespace."""

    def __init__(self, file: Path, module: ModuleType, before_import: BeforeImport, after: AfterBinding) -> None:
        """Parses the file, which may raise SyntaxError."""
        self.source = read_source(file)
        self.bound = {name for statement in self.source.statements for name in statement.binds}
        self._file = file
        self._namespace = vars(module)
        self._package = module.__package__ or ""
        self._before_import = before_import
        self._after = after
        self._begun: set[Statement] = set()

    @property
    def placeholders(self) -> dict[str, str]:
        """Name that was asked for and could not be made -> why."""
        return {name: value.why for name, value in self._namespace.items() if isinstance(value, Placeholder)}

    @property
    def left_out(self) -> list[Statement]:
        """The statements that do something and have not been run; definitions and imports do nothing by themselves."""
        return [statement for statement in self.source.statements if statement.acts and statement not in self._begun]

    def provide(self, name: str) -> bool:
        """Gives a value to a name and to all that this needs; False if the file does not say what it is."""
        if name in self.bound:
            for statement in self.source.needed_for([name]):
                if statement not in self._begun:
                    self._begun.add(statement)
                    self._run(statement)
        elif not name.startswith("_"):
            self._import_stars({name})
        return name in self._namespace

    def _run(self, statement: Statement) -> None:
        """Runs one statement. The names of one that fails become placeholders, unless they have a value already."""
        for dotted in imported_modules(statement.node):
            self._before_import(dotted)
        self._import_stars(statement.needs - self.bound)
        tree = ast.Module([statement.node], [])
        try:
            exec(compile(tree, str(self._file), "exec", self.source.flags, dont_inherit=True), self._namespace)
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            why = str(error) if isinstance(error, SubjectError) else in_one_line(error)
            stand_in = stand_in_for(error, why)
            for name in statement.binds:
                self._namespace.setdefault(name, stand_in)
        for name in statement.binds & set(self._namespace):
            failed = isinstance(self._namespace[name], Placeholder)
            if not statement.is_import and not (statement.is_definition and failed):
                self._after(self._namespace, name, self.bound)

    def _import_stars(self, names: Iterable[str]) -> None:
        """Takes names from the modules of `from module import *`."""
        wanted = {name for name in names if name not in self._namespace and not hasattr(builtins, name)}
        for star in self.source.stars if wanted else []:
            dotted = resolve_name("." * star.level + (star.module or ""), self._package)
            self._before_import(dotted)
            try:
                module = importlib.import_module(dotted)
            except ImportError:
                continue
            self._namespace |= {name: getattr(module, name) for name in wanted if hasattr(module, name)}


class LazyLoader(SourceFileLoader):
    """Makes a LazyModule of a file."""

    def __init__(self, name: str, file: Path, before_import: BeforeImport, after: AfterBinding) -> None:
        super().__init__(name, str(file))
        self._before_import = before_import
        self._after = after

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return LazyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__gpt2x__"] = LazyCode(Path(self.path), module, self._before_import, self._after)
