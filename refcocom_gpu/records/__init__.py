"""Image records in either published shape in, flat columns of images, samples and sentences out.

`arrow` reads tables, `structs` JSON lines and Python objects; both make the tables of `tables`.
"""

from refcocom_gpu.records.arrow import RECORD_FIELDS as RECORD_FIELDS
from refcocom_gpu.records.arrow import UNREAD_SAMPLE_FIELDS as UNREAD_SAMPLE_FIELDS
from refcocom_gpu.records.arrow import from_arrow as from_arrow
from refcocom_gpu.records.structs import from_jsonl as from_jsonl
from refcocom_gpu.records.structs import from_records as from_records
from refcocom_gpu.records.tables import Columns as Columns
from refcocom_gpu.records.tables import concatenate as concatenate
