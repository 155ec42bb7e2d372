"""Addresses are parsed like `ipaddress` parses them, and their kinds are those of IANA."""

import ipaddress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.columns import IPAddress
from models.decoding.addresses import MULTICAST, PRIVATE, RESERVED, parse
from tests.models.flows import batch_of, one_column

dotted = st.lists(st.integers(0, 300).map(str), min_size=1, max_size=5).map(".".join)
texts = st.one_of(
    st.ip_addresses().map(str),
    dotted,
    st.text(alphabet="0123456789.:af% \x00é", max_size=18),
)


def truth(text: str) -> tuple[int, int]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0, 0
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return address.version, int(address) >> (0 if address.version == 4 else 64)


@given(st.lists(texts, max_size=12), st.sampled_from([pa.string(), pa.large_string()]))
def test_a_text_is_parsed_as_the_standard_library_parses_it(
    lines: list[str], data_type: pa.DataType
) -> None:
    lines = [line for line in lines if "%" not in line]
    found = parse(pa.array(["8.8.8.8", *lines], data_type).slice(1))
    pairs = list(zip(found.version.tolist(), found.head.tolist(), strict=True))
    assert pairs == [truth(line) for line in lines]


def test_a_zone_and_a_mapped_address_are_understood() -> None:
    found = parse(pa.array(["fe80::1%eth0", "fe80::1", "::ffff:10.0.0.1", "10.0.0.1"]))
    assert found.version.tolist() == [6, 6, 4, 4]
    assert found.head[0] == found.head[1]
    assert found.head[2] == found.head[3]


@pytest.mark.parametrize(
    ("text", "private", "multicast", "reserved"),
    [
        ("10.255.255.255", True, False, False),
        ("11.0.0.0", False, False, False),
        ("172.31.0.1", True, False, False),
        ("172.32.0.1", False, False, False),
        ("fd00::1", True, False, False),
        ("224.0.0.251", False, True, False),
        ("ff02::fb", False, True, False),
        ("127.0.0.1", False, False, True),
        ("::1", False, False, True),
        ("fe80::1", False, False, True),
        ("255.255.255.255", False, False, True),
        ("2606:4700::1111", False, False, False),
    ],
)
def test_the_kind_of_an_address_is_the_one_that_iana_lists(
    text: str, private: bool, multicast: bool, reserved: bool
) -> None:
    address = parse(pa.array([text]))
    kinds = [bool(address.lie_in(kind)[0]) for kind in (PRIVATE, MULTICAST, RESERVED)]
    assert kinds == [private, multicast, reserved]


def test_two_addresses_share_a_network_by_their_prefix() -> None:
    left = parse(pa.array(["10.1.2.3", "10.1.2.3", "2001:db9::1", "2001:db9::1", "no", "10.1.2.3"]))
    right = parse(
        pa.array(
            ["10.1.2.99", "10.1.3.3", "2001:db9::ffff:1", "2001:db9:0:1::1", "no", "::a01:203"]
        )
    )
    assert left.share_network(right, 24).tolist() == [True, False, True, False, False, False]
    assert left.share_network(right, 16).tolist()[:2] == [True, True]
    assert np.all(left.share_network(left, 32) == (left.version != 0))


def test_a_dash_is_no_address_like_null() -> None:
    encoder = one_column(["10.0.0.1", "-", "8.8.8.8"], IPAddress("a"))
    raw = encoder.extract(batch_of(pa.table({"a": ["-", None, "10.0.0.1", "--"]})))
    assert [(p.row, p.rule) for p in raw.problems] == [(3, "unparsable")]
    dash, null, address, _ = encoder(raw).numeric.tolist()
    assert dash == null != address
