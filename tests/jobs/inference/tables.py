"""Tables that people have: logs, events, transactions, metrics, and public sets, by columns."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

ROWS = 300
START = 1_767_225_600  # 2026-01-01 in seconds since 1970
RNG = np.random.default_rng(5)

Columns = dict[str, pa.Array | Sequence[object] | np.ndarray]


def addresses(count: int = 40) -> list[str]:
    return [f"10.0.{n // 8}.{n}" for n in RNG.integers(1, count, ROWS)]


def some(*values: object) -> list[object]:
    return [values[n] for n in RNG.integers(0, len(values), ROWS)]


def amounts() -> np.ndarray:
    return RNG.lognormal(3, 1, ROWS)


def zeek() -> Columns:
    return {
        "ts": START + np.sort(RNG.uniform(0, 86_400, ROWS)),
        "uid": [f"C{n:06}x" for n in range(ROWS)],
        "id.orig_h": addresses(),
        "id.orig_p": RNG.integers(1024, 65_535, ROWS),
        "id.resp_h": addresses(),
        "id.resp_p": some(53, 80, 443),
        "proto": some("tcp", "udp"),
        "service": some("dns", "http", "ssl", None),
        "duration": amounts(),
        "orig_bytes": RNG.integers(0, 10_000, ROWS),
        "conn_state": some("SF", "S0", "REJ"),
        "local_orig": some(True, False),
        "missed_bytes": [0] * ROWS,
        "tunnel_parents": pa.array([[]] * ROWS, pa.list_(pa.string())),
    }


def zeek_json() -> Columns:
    """As Zeek writes JSON: the addresses are a struct."""
    flat = zeek()
    ends = {name: pa.array(flat.pop(f"id.{name}")) for name in ("orig_h", "orig_p")}
    ends |= {name: pa.array(flat.pop(f"id.{name}")) for name in ("resp_h", "resp_p")}
    return {**flat, "id": pa.StructArray.from_arrays(list(ends.values()), list(ends))}


def vpc_flow_logs() -> Columns:
    start = START + np.sort(RNG.integers(0, 86_400, ROWS))
    return {
        "version": [2] * ROWS,
        "account_id": ["123456789012"] * ROWS,
        "interface_id": some("eni-1", "eni-2", "eni-3"),
        "srcaddr": ["-", *addresses()[1:]],
        "dstaddr": ["-", *addresses()[1:]],
        "srcport": pa.array([None, *RNG.integers(0, 65_535, ROWS - 1)], pa.int32()),
        "dstport": pa.array(some(22, 443, 3389), pa.float64()),
        "protocol": some(6, 17),
        "packets": RNG.integers(1, 500, ROWS),
        "bytes": RNG.integers(40, 50_000, ROWS),
        "start": start,
        "end": start + 60,
        "action": some("ACCEPT", "REJECT"),
        "log_status": some("OK", "NODATA"),
    }


def cloudtrail() -> Columns:
    return {
        "eventVersion": ["1.08"] * ROWS,
        "eventTime": [f"2026-01-01T{n // 60:02}:{n % 60:02}:00Z" for n in range(ROWS)],
        "eventID": [f"{n:08x}-aa" for n in range(ROWS)],
        "eventName": some("GetObject", "AssumeRole", "ListBuckets"),
        "eventSource": some("s3.amazonaws.com", "sts.amazonaws.com"),
        "awsRegion": some("eu-west-1", "us-east-1"),
        "sourceIPAddress": addresses(),
        "userAgent": some("aws-cli/2.1", "Boto3/1.2"),
        "userIdentity": pa.array(
            some(
                {"type": "IAMUser", "userName": "ann", "sessionContext": None},
                {"type": "AssumedRole", "userName": "ci", "sessionContext": {"mfa": True}},
                {"type": "AssumedRole", "userName": "bob", "sessionContext": {"mfa": False}},
                None,
            )
        ),
        "errorCode": some("AccessDenied", None, None),
        "readOnly": some(True, False),
        "requestParameters": pa.nulls(ROWS, pa.string()),
    }


def card_transactions() -> Columns:
    return {
        "Unnamed: 0": np.arange(ROWS),
        "trans_date_trans_time": [f"2026-01-01 {n // 60:02}:{n % 60:02}:18" for n in range(ROWS)],
        "cc_num": RNG.integers(4_000_000_000_000_000, 4_000_000_000_000_090, ROWS),
        "merchant": some("fraud_Kirlin", "fraud_Rau", "fraud_Dooley"),
        "category": some("gas", "grocery", "misc"),
        "amt": amounts(),
        "zip": RNG.integers(10_000, 99_999, ROWS),
        "dob": some("1980-01-02", "1991-11-30"),
        "trans_num": [f"{n * 7919:032x}" for n in range(ROWS)],
        "unix_time": START + np.arange(ROWS) * 60,
        "is_fraud": some(0, 0, 0, 1),
    }


def machine_metrics() -> Columns:
    return {
        "machine": ["web-1"] * (ROWS // 2) + ["web-2"] * (ROWS // 2),
        "t": np.tile(np.arange(ROWS // 2), 2),
        "cpu": RNG.uniform(0, 1, ROWS),
        "memory": RNG.uniform(0, 1, ROWS),
        "label": some(0, 0, 1),
    }


def public_table() -> Columns:
    return {
        "__index_level_0__": np.arange(ROWS),
        "row": np.arange(ROWS),
        " Destination Port": some(53, 80, 443),
        "V1": RNG.normal(size=ROWS),
        "V2": RNG.normal(size=ROWS),
        "class_name": some("a", "b"),
        "attack_type": some("none", "scan"),
        " Label": some("BENIGN", "BENIGN", "DDoS"),
    }


def kdd() -> Columns:
    return {
        "duration": RNG.integers(0, 900, ROWS),
        "service": some("http", "smtp"),
        "src_bytes": RNG.integers(0, 9_000, ROWS),
        "class": some("normal.", "normal.", "neptune."),
    }


def text_digits() -> Columns:
    return {"x": RNG.normal(size=ROWS), "y": RNG.normal(size=ROWS), "label": some("0", "0", "1")}


def credit_card() -> Columns:
    return {
        "Time": np.sort(RNG.integers(0, 172_800, ROWS)).astype(float),
        "V1": RNG.normal(size=ROWS),
        "Amount": amounts(),
        "Class": some(0, 0, 0, 1),
    }


def one_host() -> Columns:
    return {
        "src_ip": ["10.0.0.7"] * ROWS,
        "seen": pa.array(range(ROWS), pa.timestamp("s", "UTC")),
        "sent": amounts(),
    }


EXPECTED: dict[str, tuple[Columns, dict[str, str]]] = {
    "zeek": (
        zeek(),
        {
            "ts": "time",
            "uid": "id",
            "id.orig_h": "entity ip",
            "id.orig_p": "port",
            "id.resp_h": "ip",
            "id.resp_p": "port",
            "proto": "categorical",
            "service": "categorical",
            "duration": "numeric",
            "orig_bytes": "numeric",
            "conn_state": "categorical",
            "local_orig": "boolean",
        },
    ),
    "vpc_flow_logs": (
        vpc_flow_logs(),
        {
            "account_id": "keep",
            "interface_id": "entity categorical",
            "srcaddr": "entity ip",
            "dstaddr": "ip",
            "srcport": "port",
            "dstport": "port",
            "protocol": "categorical",
            "packets": "numeric",
            "bytes": "numeric",
            "start": "time",
            "action": "categorical",
            "log_status": "categorical",
        },
    ),
    "cloudtrail": (
        cloudtrail(),
        {
            "eventTime": "time",
            "eventID": "id",
            "eventName": "categorical",
            "eventSource": "categorical",
            "awsRegion": "categorical",
            "sourceIPAddress": "entity ip",
            "userAgent": "categorical",
            "userIdentity.type": "categorical",
            "userIdentity.userName": "entity categorical",
            "userIdentity.sessionContext.mfa": "boolean",
            "errorCode": "categorical",
            "readOnly": "boolean",
        },
    ),
    "card_transactions": (
        card_transactions(),
        {
            "trans_date_trans_time": "time",
            "cc_num": "entity",
            "merchant": "entity categorical",
            "category": "categorical",
            "amt": "numeric",
            "is_fraud": "label",
        },
    ),
    "machine_metrics": (
        machine_metrics(),
        {
            "machine": "entity categorical",
            "t": "time",
            "cpu": "numeric",
            "memory": "numeric",
            "label": "label",
        },
    ),
    "public_table": (
        public_table(),
        {
            " Destination Port": "port",
            "V1": "numeric",
            "V2": "numeric",
            "class_name": "kind",
            " Label": "label",
        },
    ),
    "kdd": (
        kdd(),
        {
            "duration": "numeric",
            "service": "categorical",
            "src_bytes": "numeric",
            "class": "label",
        },
    ),
    "text_digits": (text_digits(), {"x": "numeric", "y": "numeric", "label": "label"}),
    "credit_card": (
        credit_card(),
        {"Time": "time", "V1": "numeric", "Amount": "numeric", "Class": "label"},
    ),
    "one_host": (one_host(), {"src_ip": "keep", "seen": "time", "sent": "numeric"}),
}


EXPECTED["zeek_json"] = (zeek_json(), EXPECTED["zeek"][1])
