"""All protocols by the name of their set. A new file of protocols is a line here."""

from tests.quality.protocol import Protocol
from tests.quality.signals import SIGNALS
from tests.quality.tables import TABLES

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol for protocols in (TABLES, SIGNALS) for protocol in protocols
}
