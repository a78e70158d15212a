"""The gradient of tables of which a window reads few rows."""

from typing import NamedTuple

from torch import Tensor


class RowGradient(NamedTuple):
    """The gradient of tables whose rows were added up: that of the sum, which all rows of a place have.

    rows: (N, T, B), int64. shares: (N, B), what the rows of a table were multiplied by; None: by 1. of_sum: (T, B, C).
    """

    rows: Tensor
    shares: Tensor | None
    of_sum: Tensor

    def flat(self) -> tuple[Tensor, Tensor]:
        """Return row numbers (N T B,) and the gradient of each of them, (N T B, C)."""
        values = self.of_sum.expand(len(self.rows), *self.of_sum.shape)
        values = values if self.shares is None else values * self.shares[:, None, :, None]
        return self.rows.flatten(), values.reshape(-1, self.of_sum.shape[-1])
