"""What the name of a column says of it, for `init`."""

import re

ANSWER = re.compile(
    r"label|attack|fraud|anomal|malicious|incident|outlier|intrusion|ground_?truth|is_?spam"
    r"|(^|_)class(_?(id|name|label))?$|^target$"
)
LABELS = {"label", "is_fraud", "isfraud", "fraud", "is_anomaly", "anomaly", "outlier"}
LABELS |= {"class", "target", "is_attack", "is_malicious"}
# What data sets call a normal row, in lower case and without a point at the end.
NORMAL = {"benign", "normal", "ham", "legit", "legitimate", "genuine", "good", "ok"}
NORMAL |= {"none", "0", "no", "false", "not fraud", "no anomaly", "non-fraud", "background"}

ID_WORDS = {"id", "uid", "uuid", "guid", "key"}
ENTITY_WORDS = {"user", "customer", "client", "account", "card", "terminal", "merchant", "host"}
ENTITY_WORDS |= {"device", "machine", "sensor", "entity", "src", "source", "orig"}
ENTITY_WORDS |= {"hostname", "instance", "server", "channel", "series", "username"}
SIDE_WORDS = {"src", "source", "orig"}  # which side a text names; a number may be any amount
# What may stand beside a side in the name of who acted. A `source` alone or of events is a system.
ACTOR_WORDS = {"ip", "addr", "address", "h", "host", "name", "node", "mac"}
COUNT_WORDS = {"ct", "cnt", "count", "num", "number", "total", "sum", "mean", "avg"}
CODE_WORDS = {"proto", "protocol", "code", "type", "category", "class", "status", "kind", "mode"}
# What an id names when it does not name who acted: `event_id`, `template_id`, `rule_id`.
KIND_WORDS = {"event", "template", "rule", "signature", "message", "msg", "log", "alert", "error"}
KIND_WORDS |= {"type", "category", "action", "method", "product", "model", "version"}
TIME_WORDS = {"t", "ts", "time", "timestamp", "datetime", "date", "epoch", "unix", "start", "end"}
TIME_WORDS |= {"created", "updated", "at", "seen", "when"}
ORDER_NAMES = {"t", "ts", "time", "timestamp", "time_s", "time_sec", "time_seconds", "step", "tick"}

# Columns that pandas and CSV files add, and numbers of rows.
_COUNTER = re.compile(
    r"__index_level_\d+__|unnamed: ?\d+.*|index|level_\d+|row|(row|line|record)_?"
    r"(id|no|nr|num|number|index|count)?"
)
# Numbers that name a card or an account, and no amount.
_ACCOUNT = re.compile(r"(cc|card|acct|account|pan|iban|msisdn|phone)_?(num|number|no|nr)|pan|iban")
_POSTAL = re.compile(r"zip|zip_?code|post_?code|postal_?code")
_PORT = re.compile(r"(id[._])?(orig|resp)_p|[sd](port|pt)")
_JOINED = re.compile(r"^(src|dst|source|dest|orig|resp)(ip|port|addr|address|host|mac)$")
_AGENT = {"agent", "version"}  # `user_agent` names a program


def split_words(name: str) -> set[str]:
    """The words of a name: `src` and `port` for `srcPort`, `src_port` and `srcport`.

    >>> sorted(split_words("sourceIPAddress"))
    ['address', 'ip', 'source']
    """
    name = re.sub(r"^id[._](?=(orig|resp)_)", "", name.strip())  # Zeek's prefix, no id
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    words = re.split(r"[^a-z0-9]+", spaced.lower())
    return {part for word in words for part in _JOINED.sub(r"\1 \2", word).split() if part}


def names_counter(name: str) -> bool:
    return bool(_COUNTER.fullmatch(name.strip().lower()))


def names_account(name: str) -> bool:
    return bool(_ACCOUNT.fullmatch(name.strip().lower()))


def names_postal_code(name: str) -> bool:
    return bool(_POSTAL.fullmatch(name.strip().lower()))


def names_port(name: str) -> bool:
    words = split_words(name)
    return bool(_PORT.fullmatch(name.strip().lower())) or (
        "port" in words and not words & COUNT_WORDS
    )


def names_actor(name: str, text: bool) -> bool:
    """Whether it names who acted. Amounts such as `src_bytes`, counters such as `ct_dst_src`,
    systems such as `eventSource`, and what happened, such as `event_id` and `user.type`, have these
    words but name nobody."""
    words = split_words(name)
    last = set([part for part in re.split(r"[^a-z0-9]+", _spaced(name)) if part][-1:])
    people = ENTITY_WORDS - SIDE_WORDS
    if words & _AGENT or last & CODE_WORDS or (words & KIND_WORDS and not words & people):
        return False
    if not text:
        ends = last & (ID_WORDS | people)
        return names_account(name) or bool(ends and not words & COUNT_WORDS)
    if words & (people | ID_WORDS) or names_account(name):
        return True
    return bool(words & SIDE_WORDS) and words <= SIDE_WORDS | ACTOR_WORDS


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
