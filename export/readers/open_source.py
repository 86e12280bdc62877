"""Find the reader for a trained model by the library that its class comes from."""

from typing import Any

from saker.export.errors import UnsupportedModel
from saker.export.readers.source import Source


def open_source(model: Any, iterations: int | None = None) -> Source:
    """Read a trained model; raises what the reader of its library raises, and UnsupportedModel for other libraries."""
    library = type(model).__module__.partition(".")[0]
    if library == "xgboost":
        from saker.export.readers.xgboost_model import XGBoostSource

        return XGBoostSource(model, iterations)
    if library == "sklearn":
        from saker.export.readers.sklearn_model import open_sklearn

        return open_sklearn(model, iterations)
    if hasattr(model, "booster_") or hasattr(model, "model_to_string"):
        from saker.export.readers.lightgbm_model import LightGBMSource

        return LightGBMSource(model, iterations)
    raise UnsupportedModel("library", f"expected a model of lightgbm, xgboost or scikit-learn, got {type(model)!r}")
