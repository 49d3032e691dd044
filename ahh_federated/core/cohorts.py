"""A cohort: the patients of one node, one row each, in memory and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn, final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cohort:
    """Columns of equal length, one entry per patient.

    A numeric column holds its value in the study's unit, a column with levels the index of the level; both as float64
    with NaN for "not known".  A cohort cannot be pickled and its repr is silent, so it cannot leave by accident.
    """

    columns: Mapping[str, F64]
    size: int

    @classmethod
    def of(cls, columns: Mapping[str, F64], size: int | None = None) -> Cohort:
        """Columns as float64 arrays of shape (patients,); `size` is needed only when there is no column."""
        held = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
        lengths = {len(values) for values in held.values()} | ({size} if size is not None else set())
        if len(lengths) != 1 or any(values.ndim != 1 for values in held.values()):
            raise ValueError(f"the columns of a cohort have one length, got {sorted(lengths)}")
        for values in held.values():
            values.flags.writeable = False
        return cls(MappingProxyType(held), lengths.pop())

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return "Cohort(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a cohort never leaves the process that loaded it")

    def __getitem__(self, name: str) -> F64:
        return self.columns[name]

    def part(self, start: int, stop: int) -> Cohort:
        """Patients start..stop, without copying."""
        columns = MappingProxyType({name: values[start:stop] for name, values in self.columns.items()})
        return Cohort(columns, min(stop, self.size) - start)

    def keep(self, mask: Bools) -> Cohort:
        """The patients where the mask, shape (patients,), is true."""
        columns = MappingProxyType({name: values[mask] for name, values in self.columns.items()})
        return Cohort(columns, int(np.count_nonzero(mask)))

    def parts(self, rows: int) -> Iterator[Cohort]:
        """Consecutive parts of at most `rows` patients."""
        for start in range(0, self.size, rows):
            yield self.part(start, start + rows)
