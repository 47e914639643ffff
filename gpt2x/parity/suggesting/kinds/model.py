"""Changes between modules: positions, embeddings, the order of layers, the final norm, and the logits."""

import ast
from collections.abc import Iterator

from gpt2x.parity.suggesting.code import Change, Code, Node, called, is_method
from gpt2x.parity.suggesting.kinds.linear import to_no_bias


def to_positions_from_zero(code: Code) -> Iterator[Change]:
    """Positions that are arange(T)."""
    for call in code.calls("arange"):
        whole = call
        for node in call.above:
            is_shift = isinstance(node.tree, ast.BinOp) and isinstance(node.tree.op, ast.Add | ast.Sub)
            is_clamp = isinstance(node.tree, ast.Attribute) or (
                isinstance(node.tree, ast.Call) and called(node.tree) in ("clamp", "clip", "relu")
            )
            if not is_shift and not is_clamp:
                break
            whole = node if not isinstance(node.tree, ast.Attribute) else whole
        if whole is not call:
            yield (whole.replaced(call.text),)
        if len(call.tree.args) == 2:
            start, end = (call.at(each) for each in call.tree.args)
            yield start.replaced("0"), end.replaced(_less(end, start))
    for node in code.of(ast.BinOp):
        name, number = node.tree.left, node.tree.right
        is_shift = isinstance(node.tree.op, ast.Add | ast.Sub) and isinstance(number, ast.Constant)
        if is_shift and isinstance(name, ast.Name) and "pos" in name.id.lower():
            yield (node.replaced(name.id),)


def _less(end: Node, start: Node) -> str:
    """`T` for `T + 1`, if the positions begin at 1."""
    tree = end.tree
    is_sum = isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add)
    if is_sum and ast.unparse(tree.right) == start.text:
        return end.at(tree.left).text
    if is_sum and ast.unparse(tree.left) == start.text:
        return end.at(tree.right).text
    return f"{end.text} - {start.text}"


def to_unscaled_embeddings(code: Code) -> Iterator[Change]:
    """Embeddings as they are looked up."""
    wte, wpe = code.name_in("", "wte"), code.name_in("", "wpe")
    for node in code.of(ast.BinOp):
        if isinstance(node.tree.op, ast.Mult | ast.Div):
            for side in (node.at(node.tree.left), node.at(node.tree.right)):
                if _calls(side, wte) or _calls(side, wpe):
                    in_parentheses = isinstance(side.tree, ast.BinOp)
                    yield (node.replaced(f"({side.text})" if in_parentheses else side.text),)
    yield from _without_scaling(code)


def _without_scaling(code: Code) -> Iterator[Change]:
    """No `x = x * scale` and no `x *= scale`."""
    for node in code.of(ast.AugAssign):
        if isinstance(node.tree.op, ast.Mult | ast.Div):
            yield (node.replaced("pass"),)
    for node in code.of(ast.BinOp):
        if isinstance(node.tree.op, ast.Mult | ast.Div) and isinstance(node.tree.left, ast.Name):
            yield (node.replaced(node.tree.left.id),)


def to_position_embedding(code: Code) -> Iterator[Change]:
    """Token embeddings to which those of the positions are added."""
    wte, wpe = code.name_in("", "wte"), code.name_in("", "wpe")
    for call in code.of(ast.Call):
        if wte and wpe and _is_call_of(call, wte) and call.tree.args and "torch" in call.file.bound:
            ids = call.at(call.tree.args[0]).text
            model = call.text[: call.text.index(wte)]
            arange = f"torch.arange({ids}.shape[-1], device={ids}.device)"
            yield (call.replaced(f"{call.text} + {model}{wpe}({arange})"),)


def to_final_norm(code: Code) -> Iterator[Change]:
    """The head on what the final norm makes."""
    norm, head = code.name_in("", "ln_f"), code.name_in("", "lm_head")
    for call in code.of(ast.Call):
        if norm and head and _is_call_of(call, head) and call.tree.args:
            x = call.at(call.tree.args[0])
            yield (x.replaced(f"{call.text[: call.text.index(head)]}{norm}({x.text})"),)


def to_one_final_norm(code: Code) -> Iterator[Change]:
    """One call of the final norm less."""
    norm = code.name_in("", "ln_f")
    for call in code.of(ast.Call):
        if norm and _is_call_of(call, norm) and call.tree.args:
            yield (call.replaced(call.at(call.tree.args[0]).text),)


def to_layers_in_order(code: Code) -> Iterator[Change]:
    """All layers, in the order in which they are defined."""
    layers = code.names.get("h.0", "").rpartition(".")[0]
    for node in code.of(ast.Subscript, ast.Call, ast.List):
        tree = node.tree
        is_slice = isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Slice)
        is_reversed = isinstance(tree, ast.Call) and called(tree) == "reversed"
        is_list = isinstance(tree, ast.List) and all(isinstance(each, ast.Subscript) for each in tree.elts)
        if layers and (is_slice or is_reversed or is_list):
            held = next((inner for inner in node.inside if _is_attribute(inner, layers)), None)
            if held is not None:
                yield (node.replaced(f"list({held.text})"),)


def to_chained_layers(code: Code) -> Iterator[Change]:
    """Each layer gets what the layer before it has made."""
    for loop in code.of(ast.For):
        for node in loop.inside:
            call = node.tree.value if isinstance(node.tree, ast.Assign) else None
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Name):
                names = [target.id for target in node.tree.targets if isinstance(target, ast.Name)]
                if names and call.args[0].id not in names:
                    yield (node.replaced(f"{call.args[0].id} = {node.text}"),)


def to_logits(code: Code) -> Iterator[Change]:
    """What the head answers, without a softmax, a cap, a factor or a bias."""
    for call in code.calls("softmax", "log_softmax"):
        base = call.tree.func.value if is_method(call.tree) else call.tree.args[0] if call.tree.args else None
        if base is not None:
            yield (call.replaced(call.at(base).text),)
    head = code.name_in("", "lm_head")
    for node in code.of(ast.BinOp):
        inner = [each for each in node.inside if head and _calls(each, head) and isinstance(each.tree, ast.Call)]
        if isinstance(node.tree.op, ast.Mult | ast.Div) and inner:
            yield (node.replaced(next(each for each in inner if _is_call_of(each, head)).text),)
    for call in code.calls("tanh"):
        capped = call.tree.func.value if is_method(call.tree) else call.tree.args[0]
        whole = next((node for node in call.above if isinstance(node.tree, ast.BinOp)), None)
        if isinstance(capped, ast.BinOp) and whole is not None:
            yield (whole.replaced(call.at(capped.left).text),)
    yield from _without_scaling(code)
    yield from to_no_bias(code)


def _is_attribute(node: Node, name: str) -> bool:
    """Whether it is `self.transformer.h` for `transformer.h`."""
    return isinstance(node.tree, ast.Attribute) and node.text.endswith(f".{name}")


def _is_call_of(node: Node, name: str) -> bool:
    return bool(name) and isinstance(node.tree, ast.Call) and _is_attribute(node.at(node.tree.func), name)


def _calls(node: Node, name: str) -> bool:
    return bool(name) and any(_is_call_of(inner, name) for inner in node.inside)
