"""The mutants of a module: its source with one thing wrong.

In:  source text. Out: `Mutant`s: code, line and what was changed; no two with the same code.

Left alone: docstrings, annotations, decorators, types (`Literal`), what is raised or printed (messages),
`strict=True` (an assertion of our own), and the encoding of files.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import TypeVar

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
RENAMED = {
    "all": "any",
    "any": "all",
    "argmax": "argmin",
    "argmin": "argmax",
    "ceil": "floor",
    "exp": "log",
    "floor": "ceil",
    "log": "exp",
    "max": "min",
    "mean": "sum",
    "min": "max",
    "ones": "zeros",
    "zeros": "ones",
}
AXES = {"axis", "dim"}
LEFT_ALONE = {"strict", "encoding"}
SYMMETRIC = {"isinstance", "max", "min", "zip"}
"""Swapped arguments change nothing, or are an error at once."""


@dataclass(frozen=True)
class Mutant:
    """One changed module."""

    line: int
    change: str
    code: CodeType


def mutants(source: str, path: str) -> list[Mutant]:
    """Every mutant of a source, by line."""
    tree = ast.parse(source)
    seen = {_fingerprint(compile(source, path, "exec"))}
    found: list[Mutant] = []
    for node, holder, field, position in _places(tree):
        for replacement in _replacements(node, field):
            _put(holder, field, position, replacement)
            ast.fix_missing_locations(ast.copy_location(replacement, node))
            code = compile(tree, path, "exec")
            _put(holder, field, position, node)
            if (mark := _fingerprint(code)) not in seen:
                seen.add(mark)
                found.append(Mutant(node.lineno, f"{_short(node)}  ->  {_short(replacement)}", code))
    return sorted(found, key=lambda mutant: mutant.line)


Node = TypeVar("Node", bound=ast.AST)
Place = tuple[ast.stmt | ast.expr, ast.AST, str, int | None]


def _places(holder: ast.AST) -> Iterator[Place]:
    """Every statement and expression that may be changed, with where it is: holder, field, index."""
    for field, value in ast.iter_fields(holder):
        if field in ("annotation", "returns", "decorator_list", "format_spec") or _is_left_alone(
            holder, field
        ):
            continue
        for position, node in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(node, ast.AST) or _is_text(node):
                continue
            if isinstance(node, ast.stmt | ast.expr):
                yield node, holder, field, position
            if not isinstance(node, ast.Raise) and not _calls(node, {"print"}):
                yield from _places(node)


def _is_left_alone(holder: ast.AST, field: str) -> bool:
    if field in ("annotation", "returns", "decorator_list", "format_spec"):
        return True
    if isinstance(holder, ast.keyword):
        return holder.arg in LEFT_ALONE
    if isinstance(holder, ast.Subscript):
        return ast.unparse(holder.value) in ("Literal", "Annotated")
    return (isinstance(holder, ast.Assert) and field == "msg") or isinstance(holder, ast.ImportFrom)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _calls(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _put(holder: ast.AST, field: str, position: int | None, node: ast.AST) -> None:
    if position is None:
        setattr(holder, field, node)
    else:
        getattr(holder, field)[position] = node


def _replacements(node: ast.stmt | ast.expr, field: str) -> Iterator[ast.AST]:
    """What may stand in a node's place: parts of it changed, and the whole."""
    if isinstance(node, ast.expr) and field in ("test", "ifs") and not _has_opposite(node):
        yield ast.UnaryOp(ast.Not(), node)
    match node:
        case ast.Compare(ops=[operator]):
            yield _changed(node, ops=[SWAPS[type(operator)]()])
        case ast.Compare(ops=[first, second]):
            yield _changed(node, ops=[SWAPS[type(first)](), second])
            yield _changed(node, ops=[first, SWAPS[type(second)]()])
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in SWAPS:
            yield _changed(node, op=SWAPS[type(operator)]())
        case ast.BoolOp(op=operator, values=values):
            yield _changed(node, op=SWAPS[type(operator)]())
            yield from values
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Constant(value=value):
            yield from (ast.Constant(other) for other in _other_constants(value))
        case ast.Name(id=name) if name in RENAMED and field == "func":
            yield ast.Name(RENAMED[name], ast.Load())
        case ast.Attribute(attr=name) if name in RENAMED:
            yield _changed(node, attr=RENAMED[name])
        case ast.Call():
            yield from _other_calls(node)
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
    if isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Expr):
        yield ast.Pass()


def _has_opposite(node: ast.expr) -> bool:
    """Negated by another replacement already."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    return isinstance(node, ast.Compare) and isinstance(
        node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn | ast.Is | ast.IsNot
    )


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    """The first two arguments swapped, neighbouring keywords swapped, another axis, no `key`."""
    starred = any(isinstance(arg, ast.Starred) for arg in call.args)
    if len(call.args) > 1 and not starred and not _calls(call, SYMMETRIC):
        yield _changed(call, args=[call.args[1], call.args[0], *call.args[2:]])
    keywords = call.keywords
    for k, keyword in enumerate(keywords):
        if keyword.arg in AXES and isinstance(keyword.value, ast.Constant | ast.UnaryOp):
            other = 0 if ast.unparse(keyword.value) != "0" else 1
            yield _with_keyword(call, k, ast.keyword(keyword.arg, ast.Constant(other)))
        if keyword.arg in {"key", "default", "dtype"}:
            yield _changed(call, keywords=keywords[:k] + keywords[k + 1 :])
        if k and keyword.arg and keywords[k - 1].arg and not {keyword.arg, keywords[k - 1].arg} & LEFT_ALONE:
            swapped = _with_keyword(call, k, ast.keyword(keyword.arg, keywords[k - 1].value))
            yield _with_keyword(swapped, k - 1, ast.keyword(keywords[k - 1].arg, keyword.value))


def _with_keyword(call: ast.Call, k: int, keyword: ast.keyword) -> ast.Call:
    return _changed(call, keywords=[*call.keywords[:k], keyword, *call.keywords[k + 1 :]])


def _changed(node: Node, **fields: object) -> Node:
    """A copy, one level deep, with other fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _other_constants(value: object) -> Iterator[bool | int | float | str]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        # A tolerance is needed, or it is not; its size is nobody's business.
        yield 0.0 if 0 < value < 1e-6 else value * 2 or 1.0
    elif isinstance(value, str):
        yield value + "x"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _fingerprint(code: CodeType) -> tuple[object, ...]:
    """Equal for codes that do the same."""
    constants = [_fingerprint(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts]
    return (code.co_code, code.co_names, code.co_varnames, tuple(constants))


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else text[:87] + "..."
