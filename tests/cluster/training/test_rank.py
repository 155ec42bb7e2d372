"""The rows of one rank: all in each pass, whether they are kept on its device or streamed."""

import copy
from collections.abc import Iterator

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from cluster.training.local_trainer import cut_tables
from cluster.training.rank import Seat, StreamedRows
from cluster.training.row_tables import from_table
from models.batch import Batch, join
from models.encoding.encoder import Encoder
from tests.models.pretend_device import DEVICE, pretending

ROWS = 1000
CPU = torch.device("cpu")


def stream(encoder: Encoder, table: pa.Table, device: torch.device, room: int) -> StreamedRows:
    def read(name: str, rows: int) -> Iterator[pa.Table]:
        return cut_tables(iter([table.slice(0, ROWS)]), rows)

    seat = Seat(device, 1, read, lambda training: None, lambda training: None)
    return StreamedRows(encoder, 10, 2, seat, seed=0, add=float, room=room)


def list_rows(batch: Batch) -> Tensor:
    """The rows in an order that does not depend on theirs."""
    assert batch.label is not None
    columns = torch.cat([batch.numeric, batch.codes.float(), batch.label[:, None]], 1)
    rows: Tensor = torch.unique(columns, dim=0)
    return rows


# What 160 rows take is a buffer: the second does not fit into 200, all do into 2,000.
@pytest.mark.parametrize("kept_rows", [0, 200, 2000])
def test_each_pass_has_each_row_once_whatever_there_is_room_for(
    encoder: Encoder, table: pa.Table, kept_rows: int
) -> None:
    extracted, label = from_table(table.slice(0, ROWS))
    expected = encoder(extracted)._replace(label=label)
    source = stream(encoder, table, CPU, kept_rows * encoder.bytes_per_row)
    for epoch in range(2):
        assert torch.equal(join(list(source.read_held_back())).numeric, expected.numeric)
        for batches in source.read_passes(epoch):
            found = join(list(batches))
            assert not torch.equal(found.numeric, expected.numeric)  # it is shuffled
            assert torch.equal(list_rows(found), list_rows(expected))


def test_rows_that_are_kept_stay_on_the_device(encoder: Encoder, table: pa.Table) -> None:
    here = [b.numeric.sum() for b in next(stream(encoder, table, CPU, 10**9).read_passes(0))]
    with pretending() as device:
        source = stream(copy.deepcopy(encoder).to(DEVICE), table, DEVICE, 10**9)
        there = [batch.numeric.sum() for batch in next(source.read_passes(0))]
        again = [batch.numeric for batch in next(source.read_passes(1))]
        assert device.waits == 0
        assert {rows.device for rows in again} == {DEVICE}
        found = torch.stack(there).cpu()
    torch.testing.assert_close(found, torch.stack(here))
