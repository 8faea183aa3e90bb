"""Lists to Arrow columns without pandas: the columns that Arrow itself would make."""

import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcocom_gpu.utils.arrow import from_list

KINDS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=9),
    pa.large_binary(): st.binary(max_size=9),
    pa.list_(pa.float64()): st.none() | st.lists(st.floats(allow_nan=False), max_size=5),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(data=st.data())
def test_columns_are_those_of_arrow(kind, data):
    values = data.draw(st.lists(KINDS[kind], max_size=70))
    column = from_list(values, kind)
    column.validate(full=True)
    assert column.equals(pa.array(values, kind))
    assert column.null_count == values.count(None)


def test_a_number_of_more_bits_is_refused():
    with pytest.raises(OverflowError):
        from_list([2**63], pa.int64())


def test_the_built_in_sample_is_scored_without_pandas():
    code = "import sys, refcocom_gpu as rc; rc.score('sample', 'sample'); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
