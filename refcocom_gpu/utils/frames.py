"""An object with an Arrow table in; its table as a DataFrame of pandas or Polars out, both imported on demand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from refcocom_gpu.utils.optional import require


class Frames:
    """Gives a class that has a table `to_pandas` and `to_polars`."""

    def to_arrow(self) -> pa.Table:
        """Return the table."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """Return the table as a `pandas.DataFrame`.

        Raises:
            UsageError: pandas is not installed.
        """
        require("pandas", "to_pandas needs pandas", "frames")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """Return the table as a `polars.DataFrame`.

        Raises:
            UsageError: Polars is not installed.
        """
        return require("polars", "to_polars needs Polars", "frames").from_arrow(self.to_arrow())
