"""Tables as pandas has them; pandas is an extra."""

from collections.abc import Mapping, Sequence
from typing import Any

from charrnn.errors import CharRNNError, how_to_install


def of_columns(columns: Mapping[str, Any]) -> Any:
    """Return a pandas DataFrame of columns by name. Raises CharRNNError where pandas is missing."""
    return _frame(columns)


def of_rows(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return a pandas DataFrame of rows, each with the same names. Raises CharRNNError where pandas is missing."""
    return _frame(list(rows))


def _frame(data: Any) -> Any:
    try:
        from pandas import DataFrame
    except ImportError:
        raise CharRNNError("tables need pandas", how_to_install("notebook")) from None
    return DataFrame(data)
