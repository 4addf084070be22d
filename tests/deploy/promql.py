"""Which metrics and labels a PromQL expression uses, and which labels its result has.

In:  an expression, and the labels of every metric that there is. Out: the labels of the result; ValueError
     names a metric that is not there, or a label that it does not have. The parsing is promql_parser's.
"""

from collections.abc import Mapping

import promql_parser as promql

TARGET_LABELS = frozenset({"job", "instance", "namespace"})
"""Labels that Prometheus adds: the first two always, the last one in Kubernetes."""
OWN_METRICS = {"up": frozenset[str]()}
"""Metrics that Prometheus makes of a target."""

Metrics = Mapping[str, frozenset[str]]
"""Labels by the name of the sample, as exposed."""


def result_labels(expression: str, metrics: Metrics) -> frozenset[str]:
    """The labels that the result may have. Raises ValueError for an unknown metric or label."""
    return _labels(promql.parse(expression), {**metrics, **OWN_METRICS})


def metric_names(expression: str) -> set[str]:
    """Every metric in an expression."""
    found: set[str] = set()

    def visit(node: promql.Expr) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.add(node.name or "")
        return True

    promql.walk(promql.parse(expression), visit)
    return found


def _labels(node: promql.Expr, metrics: Metrics) -> frozenset[str]:
    match node:
        case promql.VectorSelector():
            return _selected(node, metrics)
        case promql.MatrixSelector():
            return _selected(node.vector_selector, metrics)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _labels(node.expr, metrics)
        case promql.Call():
            found = frozenset[str]().union(*(_labels(argument, metrics) for argument in node.args))
            return found - {"le"} if node.func.name == "histogram_quantile" else found
        case promql.AggregateExpr():
            return _aggregated(node, metrics)
        case promql.BinaryExpr():
            return _combined(node, metrics)
        case promql.NumberLiteral() | promql.StringLiteral():
            return frozenset()
        case _:
            raise ValueError(f"{node.prettify()}: {type(node).__name__} is not known here")


def _selected(node: promql.VectorSelector, metrics: Metrics) -> frozenset[str]:
    if node.name is None or node.name not in metrics:
        raise ValueError(f"{node.prettify()}: nothing exports a metric {node.name}")
    labels = metrics[node.name] | TARGET_LABELS
    _check(node, {matcher.name for matcher in node.matchers.matchers}, labels)
    return labels


def _aggregated(node: promql.AggregateExpr, metrics: Metrics) -> frozenset[str]:
    inner = _labels(node.expr, metrics)
    if node.modifier is None:
        return frozenset()
    named = frozenset(node.modifier.labels)
    _check(node, named, inner)
    return named if node.modifier.type == promql.AggModifierType.By else inner - named


def _combined(node: promql.BinaryExpr, metrics: Metrics) -> frozenset[str]:
    left, right = _labels(node.lhs, metrics), _labels(node.rhs, metrics)
    if isinstance(node.lhs, promql.NumberLiteral) or not metric_names(node.lhs.prettify()):
        return right
    if node.modifier is not None and node.modifier.matching is not None:
        _check(node, node.modifier.matching.labels, left & right)
    return left | frozenset((node.modifier.group_labels or []) if node.modifier else [])


def _check(node: promql.Expr, named: "set[str] | frozenset[str] | list[str]", labels: frozenset[str]) -> None:
    unknown = set(named) - labels
    if unknown:
        raise ValueError(f"{node.prettify()}: no labels {sorted(unknown)}, there are {sorted(labels)}")
