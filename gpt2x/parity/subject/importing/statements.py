"""The top-level statements of a file, with the names that each of them binds, changes and needs."""

import __future__

import ast
import re
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path

from gpt2x.parity.subject.importing.text import text_of


@dataclass(frozen=True, eq=False)
class Statement:
    """One top-level statement."""

    node: ast.stmt
    binds: frozenset[str]
    """Names that it gives a value."""
    changes: frozenset[str]
    """Names of objects that it changes: `config["n_layer"] = 2`, `parser.add_argument(...)`."""
    needs: frozenset[str]
    """Names of the module that it uses, at once or in the bodies of functions."""
    names_path: bool
    """Whether `sys.path` is in its text."""

    @property
    def sets_path(self) -> bool:
        """Whether it changes sys.path, which the imports that follow it need."""
        return self.names_path and not self.is_import and not self.is_definition

    @property
    def is_import(self) -> bool:
        return isinstance(self.node, ast.Import | ast.ImportFrom)

    @property
    def is_definition(self) -> bool:
        return isinstance(self.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)

    @property
    def is_loop(self) -> bool:
        return isinstance(self.node, ast.For | ast.AsyncFor | ast.While)

    @property
    def acts(self) -> bool:
        """Whether it does more than to import or define something."""
        is_text = isinstance(self.node, ast.Expr) and isinstance(self.node.value, ast.Constant)
        return not (self.is_import or self.is_definition or is_text or isinstance(self.node, ast.Pass))

    @property
    def first_line(self) -> int:
        decorators = getattr(self.node, "decorator_list", [])
        return min(node.lineno for node in (self.node, *decorators))

    @property
    def last_line(self) -> int:
        return self.node.end_lineno or self.node.lineno


@dataclass(frozen=True)
class Source:
    """A file that has been parsed, and not executed."""

    statements: list[Statement]
    flags: int
    """The compiler's flags for what the file imports from __future__."""

    def needed_for(self, names: Iterable[str]) -> list[Statement]:
        """The statements that give the names their values, and all that these need, in the order of the file.

        A loop counts only if nothing else binds the name: a training loop binds many names.
        """
        found: set[Statement] = set()
        seen: set[str] = set()
        todo = [*names, *(name for statement in self.statements if statement.sets_path for name in statement.needs)]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            binding = [statement for statement in self.statements if name in statement.binds]
            binding = [statement for statement in binding if not statement.is_loop] or binding
            changing = [s for s in self.statements if name in s.changes and self._may_change(s, binding)]
            for statement in {*binding, *changing} - found:
                found.add(statement)
                todo += statement.needs
        return [statement for statement in self.statements if statement in found or statement.sets_path]

    @property
    def stars(self) -> list[ast.ImportFrom]:
        """`from module import *`, the last one first, as it hides the others."""
        nodes = [statement.node for statement in self.statements]
        return [node for node in reversed(nodes) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]

    @staticmethod
    def _may_change(statement: Statement, binding: list[Statement]) -> bool:
        """Whether a statement is to be taken as a change of an object of this file, whose names `binding` binds.

        `torch.manual_seed(0)` is no change of the module torch, and `GPT.from_pretrained("gpt2")` none of the class.
        """
        calls = isinstance(statement.node, ast.Expr) and not _calls_setattr(statement.node)
        return bool(binding) and not any(s.is_import or (calls and s.is_definition) for s in binding)


def read_source(file: Path) -> Source:
    """Parses a file, without the lines that only a notebook understands (`%magic`, `!command`).

    Raises SyntaxError.
    """
    return _parsed(text_of(file), str(file))


@lru_cache(maxsize=16)  # a subject is imported once per dtype
def _parsed(text: str, file: str) -> Source:
    try:
        tree = ast.parse(text, file)
    except SyntaxError:
        blank = re.sub(r"(?m)^([ \t]*)[%!].*$", r"\1pass", text)
        if blank == text:
            raise
        tree = ast.parse(blank, file)
    future = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        for alias in node.names
    ]
    flags: int = reduce(or_, (getattr(__future__, name).compiler_flag for name in future), 0)
    return Source([_statement(node) for node in tree.body if not _is_main(node)], flags)


def imported_modules(node: ast.stmt) -> list[str]:
    """Absolute names of the modules that a statement imports, at once or when a function in it is called."""
    found: list[str] = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            found += [alias.name for alias in inner.names]
        elif isinstance(inner, ast.ImportFrom) and inner.level == 0 and inner.module:
            found.append(inner.module)
    return found


def highest_level(source: Source) -> int:
    """The largest number of dots in front of a relative import; 0 if there is none."""
    nodes = (inner for statement in source.statements for inner in ast.walk(statement.node))
    return max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)


def _is_main(node: ast.stmt) -> bool:
    """Whether it is `if __name__ == "__main__":`, which is false in a module that is imported."""
    return isinstance(node, ast.If) and not node.orelse and "__name__" in ast.unparse(node.test)


def _statement(node: ast.stmt) -> Statement:
    text = ast.unparse(node)
    table = symtable.symtable(text, "<statement>", "exec")
    top = table.get_symbols()
    inner = [symbol for child in _descendants(table) for symbol in child.get_symbols()]
    binds = {symbol.get_name() for symbol in top if symbol.is_assigned() or symbol.is_imported()}
    binds |= {symbol.get_name() for symbol in inner if symbol.is_declared_global() and symbol.is_assigned()}
    needs = {symbol.get_name() for symbol in top if symbol.is_referenced()}
    needs |= {symbol.get_name() for symbol in inner if symbol.is_global() and symbol.is_referenced()}
    # In a class body, a name that the class binds as well means the module's until then.
    classes = [child for child in _descendants(table) if child.get_type() == "class"]
    needs |= {symbol.get_name() for child in classes for symbol in child.get_symbols() if symbol.is_referenced()}
    return Statement(node, frozenset(binds), frozenset(_changed(node)), frozenset(needs), "sys.path" in text)


def _descendants(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _descendants(child)


def _changed(node: ast.stmt) -> Iterator[str]:
    """Names of objects that a statement changes, without those in the bodies of functions, classes and loops."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = node.value.args[:1] if _calls_setattr(node) else [node.value.func]
    elif isinstance(node, ast.If | ast.With | ast.Try):
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.stmt):
                yield from _changed(part)
    for target in targets:
        root = target
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Name) and (root is not target or _calls_setattr(node)):
            yield root.id


def _calls_setattr(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "setattr"
