"""What a night tells people: a message to the webhooks of the spec, for the events they asked for.

A message that does not arrive is a line of the night's log: no night fails because of it.
"""

import os
import unicodedata
from typing import Any

from jobs.alerting.webhook import Undelivered, Webhook, allowed
from jobs.spec.sections import Alert, Event
from jobs.spec.spec import Spec
from jobs.terminal.console import say
from jobs.terminal.printable import said
from models.refusal import Refusal

_LONGEST = 2_000  # characters of a message: a chat cuts what is longer


def tell(spec: Spec, event: Event, text: str, **facts: Any) -> None:
    """Send the event to every webhook that asked for it: `text` for people, `facts` for programs.

    The text is one line without control or direction marks; `<`, `>` and `&` are escaped, as Slack
    and Mattermost expect, so that a name from a log cannot mention everybody.
    """
    document = {
        "text": f"{spec.name}: {_plain(text)}",
        "watch": spec.name,
        "event": event,
        **{name: _plain(v) if isinstance(v, str) else v for name, v in facts.items()},
    }
    for alert in spec.alerts:
        if event in alert.when:
            try:
                webhook(alert).post(document)
            except (Refusal, Undelivered) as error:
                say(f"[yellow]the alert was not delivered[/]: {said(str(error))}")


def webhook(alert: Alert) -> Webhook:
    """The webhook of the spec's entry. Raises `Refusal` where it is missing or not allowed."""
    url = os.environ.get(alert.webhook, "")
    if not url:
        raise Refusal(
            f"the environment has no {alert.webhook}: expected the URL of a webhook in it"
        )
    return allowed(url)


def problems(spec: Spec) -> tuple[str, ...]:
    """What is wrong with the webhooks here, as far as it can be said without calling them."""
    found = []
    for index, alert in enumerate(spec.alerts):
        try:
            webhook(alert)
        except Refusal as refusal:
            where = spec.where("alerts", index, "webhook")
            found.append(f"{where}: alerts.{index}.webhook: {refusal}")
    return tuple(found)


def _plain(text: str) -> str:
    line = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    cut = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return cut.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
