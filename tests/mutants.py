"""Mutants: what differs from a module of the package by one operator at one place of its syntax tree.

A mutant is named by file, function, operator and number among the operator's places in that function, so that a change elsewhere renames
none. No place is taken where tests of messages look: annotations, defaults, f-strings, ``raise``, an ``if`` that ends with it, what is read
there alone, functions named ``check...``.
"""

import ast
import collections
import re
import types

ARITHMETIC = {
    ast.Add: ("+ to -", ast.Sub),
    ast.Sub: ("- to +", ast.Add),
    ast.Mult: ("* to /", ast.Div),
    ast.Div: ("/ to *", ast.Mult),
}
BOUNDS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
DROPPED = (
    {"sqrt": "root", "square": "square"}
    | dict.fromkeys(("log", "log1p", "log2"), "log")
    | dict.fromkeys(("exp", "expm1", "exp2"), "exp")
)
SWAPPED = [("sum and mean", "sum", "mean"), ("sine and cosine", "sin", "cos")]
SWAPPED += [
    ("least and largest", *pair)
    for pair in (("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("minimum", "maximum"))
]
RENAMED = {a: (operator, b) for operator, *pair in SWAPPED for a, b in (pair, reversed(pair))}
DEVIATION = re.compile(r"(std|sigma|tau)(_(min|max|t|s|\d))?$")

Mutant = collections.namedtuple("Mutant", "module function operator number place new")  # place: parent, field, index


def name(mutant):
    return ":".join(map(str, mutant[:4]))


def number(node, *values):
    return isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value in values


def more(node):
    """One more than a whole number that is written out."""
    signed = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
    return [ast.BinOp(node, ast.Add(), ast.Constant(1))] if signed or number(node, *range(100)) else []


def replacements(node):
    """(operator, what it puts in the place of a node) ..."""
    match node:
        case ast.BinOp(a, op, b):
            if type(op) in ARITHMETIC:
                operator, other = ARITHMETIC[type(op)]
                yield operator, ast.BinOp(a, other(), b)
            if isinstance(op, ast.Mult) and number(a, 2, 0.5):
                yield "factor 2 or 1/2 dropped", b
            if isinstance(op, ast.Mult | ast.Div) and number(b, 2, 0.5):
                yield "factor 2 or 1/2 dropped", a
            if isinstance(op, ast.Pow) and number(b, 2, 0.5):
                yield f"{'square' if b.value == 2 else 'root'} dropped", a
            if isinstance(op, ast.Add | ast.Sub) and number(b, 1) and isinstance(b.value, int):
                yield "off by one", a
            for side in (a, b):
                if isinstance(side, ast.Name) and DEVIATION.match(side.id) and not isinstance(op, ast.Pow):
                    square = ast.BinOp(side, ast.Pow(), ast.Constant(2))
                    yield "variance for deviation", ast.BinOp(*(square, op, b) if side is a else (a, op, square))
        case ast.UnaryOp(ast.USub(), operand):
            yield "minus dropped", operand
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                if type(op) in BOUNDS:
                    yield "bound", ast.Compare(left, [*ops[:i], BOUNDS[type(op)](), *ops[i + 1 :]], comparators)
        case ast.Slice(low, high, step):
            yield from (("off by one", ast.Slice(one, high, step)) for one in more(low))
            yield from (("off by one", ast.Slice(low, one, step)) for one in more(high))
        case ast.Subscript(value, index, context):
            yield from (("off by one", ast.Subscript(value, one, context)) for one in more(index))
        case ast.Call(ast.Name("range") as called, [*start, stop]) if len(start) < 2:
            yield "off by one", ast.Call(called, [*start, ast.BinOp(stop, ast.Sub(), ast.Constant(1))], [])
        case ast.Call(ast.Attribute(value, called), arguments, keywords) if called in RENAMED:
            operator, other = RENAMED[called]
            yield operator, ast.Call(ast.Attribute(value, other, ast.Load()), arguments, keywords)
        case ast.Call(ast.Name(called), arguments, keywords) if called in RENAMED:
            operator, other = RENAMED[called]
            yield operator, ast.Call(ast.Name(other, ast.Load()), arguments, keywords)
        case ast.Call(ast.Attribute(value, called), ([] | [_]) as arguments, []) if called in DROPPED:
            yield f"{DROPPED[called]} dropped", (arguments or [value])[0]
        case ast.Call(ast.Name(called), [argument], []) if called.removeprefix("_") in DROPPED:
            yield f"{DROPPED[called.removeprefix('_')]} dropped", argument


def mutants(module, tree):
    """All mutants of a module's tree."""
    for top in (n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef)):
        for function in (n for n in top.body if isinstance(n, ast.FunctionDef)):
            if not re.match(r"_?check|__repr__", function.name):
                numbers, ignored = collections.Counter(), validation(function)
                where = f"{top.name}.{function.name}" if isinstance(top, ast.ClassDef) else function.name
                for node, place, owner in places(function, where, ignored):
                    for operator, new in replacements(node):
                        yield Mutant(module, owner, operator, numbers[owner, operator], place, new)
                        numbers[owner, operator] += 1


def places(function, where, ignored):
    """(node, its place, the function it is in) below a function, in the order of the source, but for what is ignored."""
    stack = [(function, "body", i, n, where) for i, n in reversed(list(enumerate(function.body)))]
    while stack:
        parent, field, index, node, where = stack.pop()
        if id(node) in ignored or isinstance(node, ast.JoinedStr | ast.Raise):
            continue
        if isinstance(node, ast.FunctionDef):
            yield from places(node, f"{where}.{node.name}", ignored)
            continue
        if hasattr(node, "lineno"):
            yield node, (parent, field, index), where
        for field, value in reversed(list(ast.iter_fields(node))):
            children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            below = [(node, field, i, n, where) for i, n in reversed(children) if isinstance(n, ast.AST)]
            stack += below if field != "annotation" else []


def validation(function):
    """The nodes of checks: the ``if``s that end with ``raise``, but for their ``else``, and what is read there alone."""
    checks = [n for n in ast.walk(function) if isinstance(n, ast.If) and isinstance(n.body[-1], ast.Raise)]
    parts = [part for check in checks for part in (check.test, *check.body)]
    ignored, inside = {id(part) for part in parts}, {id(n) for part in parts for n in ast.walk(part)}
    read = collections.defaultdict(list)
    for n in ast.walk(function):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load):
            read[n.id].append(id(n) in inside)
    for n in ast.walk(function):
        if isinstance(n, ast.Assign) and all(isinstance(t, ast.Name) and all(read[t.id] or [False]) for t in n.targets):
            ignored.add(id(n))
    return ignored


def codes(tree, file, mutant):
    """The codes of the mutated module, by qualified name and first line; the tree is as it was afterwards."""
    parent, field, index = mutant.place
    whole = getattr(parent, field)
    old = whole if index is None else whole[index]
    new = ast.fix_missing_locations(ast.copy_location(mutant.new, old))
    setattr(parent, field, new if index is None else [*whole[:index], new, *whole[index + 1 :]])
    try:
        found = [compile(tree, file, "exec", dont_inherit=True)]
    finally:
        setattr(parent, field, whole)
    for code in found:  # it grows
        found += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return {(c.co_qualname, c.co_firstlineno): c for c in found}
