"""Decodes the columns of one batch, in the same way for fitting, training and scoring."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.columns import (
    Audio,
    Boolean,
    Categorical,
    Image,
    IPAddress,
    Numeric,
    Port,
    Sequence,
    Text,
    Timestamp,
    Vector,
    Video,
)
from models.decoding.addresses import MULTICAST, PRIVATE, RESERVED, Addresses, parse
from models.decoding.audio import decode_audio
from models.decoding.images import decode_images, decode_videos
from models.decoding.lists import decode_events, decode_steps, decode_vector
from models.decoding.scalars import (
    Bools,
    Cells,
    decode_boolean,
    decode_category,
    decode_number,
    decode_port,
    decode_text,
)
from models.decoding.texts import decode_texts
from models.decoding.times import decode_timestamp
from models.schema import Source

# What Zeek and the flow logs of clouds write where there is no address.
NO_ADDRESS = "-"


class Decoder:
    """Decodes the columns of one batch. An address column that two features need is parsed once."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._addresses: dict[str, tuple[Addresses, Bools | None, tuple[Any, ...]]] = {}

    def decode(self, source: Source, channels: int = 3) -> Cells:
        """Decode a column. Images have `channels` channels if the column does not set a number."""
        column = source.column
        match column:
            case IPAddress():
                return self._decode_address(column)
            case Categorical():
                return decode_category(self._batch.column(column.name))
        array = self._batch.column(column.name)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_decimal(array.type):
            array = array.cast(pa.float64(), safe=False)
        match column:
            case Numeric():
                return decode_number(array, column)
            case Boolean():
                return decode_boolean(array)
            case Port():
                return decode_port(array)
            case Timestamp():
                return decode_timestamp(array, column.unit)
            case Vector():
                return decode_vector(array)
            case Sequence():
                return decode_events(array) if source.has_events else decode_steps(array)
            case Image():
                return decode_images(array, column.size, column.channels or channels)
            case Video():
                return decode_videos(array, column.frames, column.size, channels)
            case Audio():
                return decode_audio(array, column)
            case Text():
                return decode_texts(array, column)

    def _decode_address(self, column: IPAddress) -> Cells:
        addresses, null, problems = self._parse(column.name)
        inputs = [addresses.lie_in(kind) for kind in (PRIVATE, MULTICAST, RESERVED)]
        if column.same_network_as:
            other, _, _ = self._parse(column.same_network_as)
            inputs.append(addresses.share_network(other, column.prefix))
        return Cells(tuple(inputs), null, problems)

    def _parse(self, name: str) -> tuple[Addresses, Bools | None, tuple[Any, ...]]:
        if name not in self._addresses:
            (indices, texts), null, problems = decode_text(self._batch.column(name))
            # One more entry stands for null and for invalid UTF-8: no address and no new problem.
            distinct = parse(pa.concat_arrays([texts.fill_null(""), pa.array([""], texts.type)]))
            unset = np.append(np.asarray(pc.equal(texts, NO_ADDRESS).fill_null(False)), False)
            known = np.append(np.asarray(texts.is_valid()), False) & ~unset
            if unset.any():
                null = unset[indices] if null is None else null | unset[indices]
            unparsable = ((distinct.version == 0) & known)[indices]
            if unparsable.any():
                problems = (*problems, (unparsable, "unparsable"))
            self._addresses[name] = (distinct.take(indices), null, problems)
        return self._addresses[name]
