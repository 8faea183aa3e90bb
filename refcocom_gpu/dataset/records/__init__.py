"""Records of any shape in, flat columns of images, samples and sentences out.

Every reader makes the tables of `tables`. `arrow` reads image records held by Arrow; `structs` reads them from JSON
lines and Python objects. `refer` reads the release of the original sets, and `mirrors` reads the copies of it.
"""

from refcocom_gpu.dataset.records.arrow import RECORD_FIELDS as RECORD_FIELDS
from refcocom_gpu.dataset.records.arrow import UNREAD_SAMPLE_FIELDS as UNREAD_SAMPLE_FIELDS
from refcocom_gpu.dataset.records.arrow import from_arrow as from_arrow
from refcocom_gpu.dataset.records.mirrors import MIRROR_FIELDS as MIRROR_FIELDS
from refcocom_gpu.dataset.records.mirrors import from_mirror as from_mirror
from refcocom_gpu.dataset.records.mirrors import is_mirror as is_mirror
from refcocom_gpu.dataset.records.mirrors import mirror_rows as mirror_rows
from refcocom_gpu.dataset.records.refer import from_refer as from_refer
from refcocom_gpu.dataset.records.references import Invalid as Invalid
from refcocom_gpu.dataset.records.structs import from_jsonl as from_jsonl
from refcocom_gpu.dataset.records.structs import from_records as from_records
from refcocom_gpu.dataset.records.tables import Columns as Columns
from refcocom_gpu.dataset.records.tables import concatenate as concatenate
