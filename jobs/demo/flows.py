"""One day of network flows of an office: 220 hosts, its servers, and the internet around it."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rng = np.random.Generator

ROWS = 25_000  # flows on a working day at scale 1
HOSTS = 220
SERVERS = 12
SITES = 3_000  # public addresses that are visited
SCANNERS = 400  # public addresses that knock on the door all the time

# Share of the flows; logs of the median bytes sent, bytes received and seconds; spread of the
# three; internal: to our own servers. The medians are from Zeek logs of office networks, rounded.
SERVICES = np.array(
    [
        # name, port, proto, share, sent, received, seconds, spread, internal
        ("dns", 53, "udp", 0.34, 3.8, 4.8, -4.2, 0.5, True),
        ("ssl", 443, "tcp", 0.30, 7.4, 9.3, 1.6, 1.5, False),
        ("quic", 443, "udp", 0.08, 8.1, 10.2, 2.6, 1.4, False),
        ("http", 80, "tcp", 0.06, 6.2, 8.3, -1.0, 1.3, False),
        ("ntp", 123, "udp", 0.04, 3.9, 3.9, -3.0, 0.1, False),
        ("smb", 445, "tcp", 0.04, 8.6, 9.4, 2.2, 1.8, True),
        ("ldap", 389, "tcp", 0.03, 6.6, 7.6, -0.5, 0.8, True),
        ("krb", 88, "tcp", 0.02, 7.2, 7.3, -3.2, 0.3, True),
        ("smtp", 587, "tcp", 0.01, 9.6, 6.6, 1.2, 1.9, False),
        ("imap", 993, "tcp", 0.02, 6.9, 8.9, 3.8, 1.6, False),
        ("ssh", 22, "tcp", 0.01, 8.4, 8.7, 4.2, 1.7, True),
        ("rdp", 3389, "tcp", 0.01, 10.2, 12.1, 5.4, 1.4, True),
        ("", 0, "tcp", 0.03, 6.5, 7.2, 1.0, 2.0, False),  # unknown, on any port
        ("", 0, "udp", 0.01, 5.8, 5.2, 0.0, 1.6, False),
    ],
    dtype=[
        ("name", "U8"),
        ("port", "i8"),
        ("proto", "U4"),
        ("share", "f8"),
        ("sent", "f8"),
        ("received", "f8"),
        ("seconds", "f8"),
        ("spread", "f8"),
        ("internal", "?"),
    ],
)
# Weights of the hours: working people with a dip at noon, machines that never sleep.
_NIGHT, _MORNING = (2, 1.6, 1.5, 1.5, 1.6, 2, 3, 5.5), (9, 11, 11.5, 10.5, 8.5)
_AFTERNOON, _EVENING = (10, 11, 10.8, 9.8, 8), (5.5, 4.2, 3.6, 3.2, 2.8, 2.3)
HOURS = np.array([*_NIGHT, *_MORNING, *_AFTERNOON, *_EVENING])
TALKERS = 30  # source hosts that an attacker may hold
STATES = np.array(["SF", "S0", "REJ", "RSTO", "RSTR", "S1", "OTH"])
FAILED = ("S0", "REJ")  # never established: no duration and no bytes

SCAN_ROWS, BEACON_ROWS, THEFT_ROWS = 55, 45, 12  # a day with the incident, at scale 1

Flows = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """The hosts, servers and sites, which stay the same from day to day."""

    hosts: NDArray[np.str_]
    servers: NDArray[np.str_]
    sites: NDArray[np.str_]
    scanners: NDArray[np.str_]
    activity: Floats  # of the hosts, Zipf
    popularity: Floats  # of the sites, Zipf

    @classmethod
    def draw(cls, rng: Rng) -> "Network":
        last = np.arange(HOSTS)
        hosts = np.array([f"10.20.{i // 100}.{i % 100 + 20}" for i in last])
        servers = np.array([f"10.20.250.{i + 5}" for i in range(SERVERS)])
        return cls(
            hosts,
            servers,
            _draw_addresses(rng, SITES),
            _draw_addresses(rng, SCANNERS),
            _zipf_weights(HOSTS, 0.8)[rng.permutation(HOSTS)],
            _zipf_weights(SITES, 1.05),
        )


def draw_day(
    network: Network, rng: Rng, day: date, scale: float, number: int, last: bool
) -> pa.Table:
    """The flows of one day in the order of time, with the incidents of the day."""
    weekend = day.weekday() >= 5
    rows = max(50, round(ROWS * scale * (0.42 if weekend else 1.0) * rng.normal(1.0, 0.03)))
    parts = [
        _draw_office(network, rng, rows - rows // 80, weekend),
        _draw_knocks(network, rng, rows // 80),
    ]
    if last or number % 5 == 2:
        parts.append(_draw_scan(network, rng, _scale_rows(SCAN_ROWS, scale)))
    if last or number % 7 in (3, 4, 5):
        parts.append(_draw_beacon(network, rng, _scale_rows(BEACON_ROWS, scale)))
    if last or number % 6 == 4:
        parts.append(_draw_theft(network, rng, _scale_rows(THEFT_ROWS, scale)))
    flows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(flows["seconds_of_day"], kind="stable")
    return _make_table({name: values[order] for name, values in flows.items()}, rng, day)


def _draw_office(network: Network, rng: Rng, rows: int, weekend: bool) -> Flows:
    share = SERVICES["share"] / SERVICES["share"].sum()
    service = SERVICES[rng.choice(len(SERVICES), rows, p=share)]
    size = rng.normal(size=rows)  # one flow's size moves bytes and duration together
    spread = service["spread"]
    host = rng.choice(HOSTS, rows, p=network.activity)
    site = network.sites[rng.choice(SITES, rows, p=network.popularity)]
    server = network.servers[rng.integers(0, SERVERS, rows) * (service["port"] != 53)]
    port = np.where(service["port"] > 0, service["port"], rng.choice(65536 - 1024, rows) + 1024)
    flows = _empty_flows(rows)
    flows["seconds_of_day"] = _draw_times(rng, rows, HOURS + 20 if weekend else HOURS)
    flows["src_ip"], flows["dst_ip"] = (
        network.hosts[host],
        np.where(service["internal"], server, site),
    )
    flows["src_port"], flows["dst_port"] = rng.integers(32_768, 61_000, rows), port
    flows["proto"], flows["service"] = service["proto"], service["name"]
    flows["sent"] = np.exp(service["sent"] + spread * (0.7 * size + 0.6 * rng.normal(size=rows)))
    flows["received"] = np.exp(
        service["received"] + spread * (0.8 * size + 0.6 * rng.normal(size=rows))
    )
    flows["duration"] = np.exp(
        service["seconds"] + spread * (0.5 * size + 0.7 * rng.normal(size=rows))
    )
    states = np.array([0.924, 0.025, 0.006, 0.02, 0.01, 0.01, 0.005])
    flows["conn_state"] = STATES[rng.choice(len(STATES), rows, p=states)]
    return flows


def _draw_knocks(network: Network, rng: Rng, rows: int) -> Flows:
    """Background noise of the internet: strangers try well-known ports of our servers."""
    flows = _empty_flows(rows)
    flows["seconds_of_day"] = rng.uniform(0, 86_400, rows)
    flows["src_ip"] = network.scanners[rng.integers(0, SCANNERS, rows)]
    flows["dst_ip"] = network.servers[rng.integers(0, 3, rows)]
    flows["src_port"] = rng.integers(1_024, 65_536, rows)
    ports, share = [22, 23, 80, 443, 445, 3389, 8080], [0.25, 0.3, 0.1, 0.1, 0.1, 0.1, 0.05]
    flows["dst_port"] = rng.choice(ports, rows, p=share)
    flows["conn_state"] = rng.choice(np.array(FAILED), rows, p=[0.8, 0.2])
    return flows


def _draw_scan(network: Network, rng: Rng, rows: int) -> Flows:
    """One of our hosts tries many ports of a server in a few minutes."""
    flows = _empty_flows(rows, "port scan")
    start = rng.uniform(0, 80_000)
    flows["seconds_of_day"] = start + np.sort(rng.uniform(0, 240, rows))
    flows["src_ip"][:] = network.hosts[rng.integers(0, TALKERS)]
    flows["dst_ip"][:] = network.servers[rng.integers(0, SERVERS)]
    flows["src_port"] = rng.integers(32_768, 61_000, rows)
    flows["dst_port"] = rng.integers(1, 10_000, rows)
    flows["conn_state"] = rng.choice(np.array(["REJ", "S0", "RSTO"]), rows, p=[0.7, 0.2, 0.1])
    flows["sent"], flows["received"] = rng.integers(0, 60, rows), rng.integers(0, 40, rows)
    flows["duration"] = rng.lognormal(-7, 0.5, rows)
    return flows


def _draw_beacon(network: Network, rng: Rng, rows: int) -> Flows:
    """A host calls home at regular times: always the same bytes, to a port of no known service."""
    flows = _empty_flows(rows, "beaconing")
    beat = 86_400 / rows
    flows["seconds_of_day"] = np.clip(
        (np.arange(rows) + rng.normal(0.5, 0.02, rows)) * beat, 0, 86_399
    )
    flows["src_ip"][:] = network.hosts[rng.integers(0, TALKERS)]
    flows["dst_ip"][:] = _draw_addresses(rng, 1)[0]
    flows["src_port"] = rng.integers(49_152, 65_536, rows)
    flows["dst_port"][:] = rng.choice([4444, 8443, 6667])
    flows["conn_state"][:] = rng.choice(["RSTR", "S1"])
    flows["sent"], flows["received"] = rng.normal(310, 6, rows), rng.normal(122, 2, rows)
    flows["duration"] = rng.normal(0.42, 0.03, rows).clip(0.1)
    return flows


def _draw_theft(network: Network, rng: Rng, rows: int) -> Flows:
    """At night a host sends hundreds of megabytes to one address outside."""
    flows = _empty_flows(rows, "exfiltration")
    flows["seconds_of_day"] = rng.uniform(3_600, 4 * 3_600) + np.sort(rng.uniform(0, 5_400, rows))
    flows["src_ip"][:] = network.hosts[rng.integers(0, TALKERS)]
    flows["dst_ip"][:] = _draw_addresses(rng, 1)[0]
    flows["src_port"] = rng.integers(32_768, 61_000, rows)
    port, service = ((22, "ssh"), (443, "ssl"))[rng.integers(0, 2)]
    flows["dst_port"][:], flows["service"][:] = port, service
    flows["conn_state"][:] = "SF"
    flows["sent"] = rng.lognormal(20.0, 0.7, rows)  # median 490 MB
    flows["received"] = rng.lognormal(7.8, 0.4, rows)
    flows["duration"] = flows["sent"] / rng.lognormal(13.0, 0.4, rows)
    return flows


def _empty_flows(rows: int, incident: str = "") -> Flows:
    """TCP flows without service and bytes, which each kind of traffic fills in."""
    numbers = ("seconds_of_day", "src_port", "dst_port", "sent", "received", "duration")
    flows: Flows = {name: np.zeros(rows) for name in numbers}
    for name, width in (("src_ip", 15), ("dst_ip", 15), ("service", 8), ("conn_state", 4)):
        flows[name] = np.full(rows, "", dtype=f"U{width}")
    flows["proto"] = np.full(rows, "tcp", dtype="U4")
    flows["incident"] = np.full(rows, incident, dtype="U16")
    return flows


def _make_table(flows: Flows, rng: Rng, day: date) -> pa.Table:
    rows = len(flows["proto"])
    failed = np.isin(flows["conn_state"], FAILED)
    sent, received = (np.where(failed, 0, np.rint(flows[n])) for n in ("sent", "received"))
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    ts = np.int64(midnight) * 1_000_000 + (flows["seconds_of_day"] * 1e6).astype(np.int64)
    planted = flows["incident"] != ""
    # Every second packet is acknowledged by a packet without bytes.
    out = (sent / rng.uniform(400, 1400, rows)).astype(np.int64)
    back = (received / rng.uniform(500, 1400, rows)).astype(np.int64)
    service = np.where(failed, "", flows["service"])
    return pa.table(
        {
            "uid": _draw_uids(rng, rows),
            "ts": pa.array(ts, pa.timestamp("us", tz="UTC")),
            "src_ip": pa.array(flows["src_ip"]),
            "src_port": pa.array(flows["src_port"].astype(np.int32)),
            "dst_ip": pa.array(flows["dst_ip"]),
            "dst_port": pa.array(flows["dst_port"].astype(np.int32)),
            "proto": pa.array(flows["proto"]),
            "service": pa.array(service, mask=service == ""),
            "duration": pa.array(np.round(flows["duration"], 6), mask=failed),
            "orig_bytes": pa.array(sent.astype(np.int64), mask=failed),
            "resp_bytes": pa.array(received.astype(np.int64), mask=failed),
            "orig_pkts": pa.array(1 + np.maximum(out, back // 2)),
            "resp_pkts": pa.array((flows["conn_state"] != "S0") + np.maximum(back, out // 2)),
            "conn_state": pa.array(flows["conn_state"]),
            "label": pa.array(planted.astype(np.int8)),
            "incident": pa.array(flows["incident"], mask=~planted),
        }
    )


def _draw_uids(rng: Rng, rows: int) -> pa.Array:
    """Ids as Zeek writes them: a C and 17 letters and digits. One buffer is faster than strings."""
    letters = np.frombuffer(
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", dtype=np.uint8
    )
    text = letters[rng.integers(0, len(letters), (rows, 18), dtype=np.uint8)]
    text[:, 0] = ord("C")
    offsets = np.arange(0, 18 * (rows + 1), 18, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))


def _draw_addresses(rng: Rng, count: int) -> NDArray[np.str_]:
    """Public addresses: a first byte of 11 to 99 is neither private nor multicast."""
    bytes_ = rng.integers([11, 0, 0, 1], [100, 256, 256, 255], (count, 4))
    return np.array([".".join(map(str, four)) for four in bytes_.tolist()])


def _zipf_weights(count: int, exponent: float) -> Floats:
    weight: Floats = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    total: float = weight.sum()
    return weight / total


def _draw_times(rng: Rng, rows: int, hours: Floats) -> Floats:
    """Seconds of the day, drawn by the weights of its 24 hours."""
    hour = rng.choice(24, rows, p=hours / hours.sum())
    return hour * 3_600 + rng.uniform(0, 3_600, rows)


def _scale_rows(rows: int, scale: float) -> int:
    return max(3, round(rows * scale))
