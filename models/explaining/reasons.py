"""The Arrow type of reasons, apart from what makes them: the lake declares it without torch."""

import pyarrow as pa

# One row's reasons, the largest contribution first.
REASONS = pa.list_(
    pa.struct(
        [
            pa.field("feature", pa.string()),
            pa.field("contribution", pa.float32()),  # in the unit of the score
            pa.field("observed", pa.string()),
            pa.field("expected", pa.string()),  # by the detector, given the rest of the row
            pa.field("usual", pa.string()),  # in training; null where nothing short can be said
        ]
    )
)
