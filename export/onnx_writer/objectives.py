"""What each objective makes of the margin: the last nodes of the graph.

One table, `TRANSFORMS`, holds everything that is known about objectives; a name that is not in it is refused. The formulas
are those of `ConvertOutput` in LightGBM's src/objective/*.hpp, in float64, written with the operators that onnxruntime has for
float64 and that keep the *relative* error of a small score near 1e-16:

- its Sigmoid loses the small half (at a margin of -30 nothing is left of it), so the logistic is spelled with Exp;
- it has no Softplus for float64, and `log(1 + e^x)` would lose small scores in the 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from saker.engine.contract import ScoreMeaning
from saker.export.errors import UnsupportedModel
from saker.export.readers.ensemble import Ensemble


@dataclass
class Nodes:
    """A run of nodes under construction; `add` returns the name of the new value. Lives during one export."""

    nodes: list[NodeProto]
    constants: dict[str, TensorProto]

    def add(self, operator: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name


def _identity(graph: Nodes, margin: str, ensemble: Ensemble) -> str:
    return margin


def _regression(graph: Nodes, margin: str, ensemble: Ensemble) -> str:
    if not ensemble.square_root:
        return margin
    return graph.add("Mul", graph.add("Abs", margin), margin)  # sign(x) * x * x


def _logistic(graph: Nodes, margin: str, ensemble: Ensemble) -> str:
    exponent = graph.add("Mul", margin, graph.constant("minus_sigmoid", np.float64(-ensemble.sigmoid)))
    one_more = graph.add("Add", graph.add("Exp", exponent), graph.constant("one", np.float64(1)))
    return graph.add("Reciprocal", one_more)


def _exponential(graph: Nodes, margin: str, ensemble: Ensemble) -> str:
    return graph.add("Exp", margin)


def _log1p_exp(graph: Nodes, margin: str, ensemble: Ensemble) -> str:
    # log1p(u) = log(w) * u / (w - 1) with w = 1 + u rounded: the error of the rounding cancels (Kahan; see Goldberg,
    # "What every computer scientist should know about floating-point arithmetic", theorem 4). u itself where w is 1,
    # and log(w) from 1 on, where nothing is lost and where an infinite u would give inf / inf.
    one = graph.constant("one", np.float64(1))
    u = graph.add("Exp", margin)
    w = graph.add("Add", u, one)
    log_w = graph.add("Log", w)
    correction = graph.add("Where", graph.add("Less", u, one), graph.add("Div", u, graph.add("Sub", w, one)), one)
    return graph.add("Where", graph.add("Equal", w, one), u, graph.add("Mul", log_w, correction))


def _softmax(graph: Nodes, margin: str, ensemble: Ensemble) -> str:
    return graph.add("Softmax", margin, axis=1)


@dataclass(frozen=True)
class Transform:
    """How a margin becomes a score, and what to call the score."""

    meaning: ScoreMeaning
    build: Callable[[Nodes, str, Ensemble], str]


TRANSFORMS: dict[str, Transform] = {
    "binary": Transform("probability", _logistic),
    "cross_entropy": Transform("probability", _logistic),
    "cross_entropy_lambda": Transform("value", _log1p_exp),
    "multiclass": Transform("probability", _softmax),
    "multiclassova": Transform("probability", _logistic),
    "regression": Transform("value", _regression),
    "regression_l1": Transform("value", _regression),
    "huber": Transform("value", _regression),
    "fair": Transform("value", _regression),
    "quantile": Transform("value", _regression),
    "mape": Transform("value", _regression),
    "poisson": Transform("value", _exponential),
    "gamma": Transform("value", _exponential),
    "tweedie": Transform("value", _exponential),
    "lambdarank": Transform("rank", _identity),
    "rank_xendcg": Transform("rank", _identity),
    "custom": Transform("margin", _identity),
    # XGBoost
    "binary:logistic": Transform("probability", _logistic),
    "reg:logistic": Transform("probability", _logistic),
    "binary:logitraw": Transform("margin", _identity),
    "multi:softprob": Transform("probability", _softmax),
    "reg:squarederror": Transform("value", _identity),
    "reg:absoluteerror": Transform("value", _identity),
    "reg:pseudohubererror": Transform("value", _identity),
    "reg:quantileerror": Transform("value", _identity),
    "count:poisson": Transform("value", _exponential),
    "reg:gamma": Transform("value", _exponential),
    "reg:tweedie": Transform("value", _exponential),
    "rank:ndcg": Transform("rank", _identity),
    "rank:map": Transform("rank", _identity),
    "rank:pairwise": Transform("rank", _identity),
    # A forest of scikit-learn: the leaves hold the result itself
    "mean": Transform("value", _identity),
}


def transform_of(ensemble: Ensemble) -> Transform:
    """The transform of the ensemble's objective; raises UnsupportedModel for an objective that TRANSFORMS lacks."""
    try:
        return TRANSFORMS[ensemble.objective]
    except KeyError:
        known = ", ".join(TRANSFORMS)
        raise UnsupportedModel("objective", f"{ensemble.objective!r} is not one of {known}") from None
