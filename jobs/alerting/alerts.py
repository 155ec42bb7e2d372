"""Messages about a night, sent to the webhooks of the spec that subscribed to the event.

An undelivered message is logged. It never fails the night.
"""

import os
from typing import Any

from jobs.alerting.webhook import Undelivered, Webhook, parse_webhook
from jobs.spec.sections import Alert, Event
from jobs.spec.spec import Spec
from jobs.terminal.console import warn
from jobs.terminal.printable import escape_chat
from models.refusal import Refusal


def send(spec: Spec, event: Event, text: str, **facts: Any) -> None:
    """Send an event to the webhooks that subscribed to it: `text` for people, `facts` for programs.

    Every text is escaped for chats (see `escape_chat`).
    """
    document = {
        "text": f"{spec.name}: {escape_chat(text)}",
        "watch": spec.name,
        "event": event,
        **{name: escape_chat(v) if isinstance(v, str) else v for name, v in facts.items()},
    }
    for alert in spec.alerts:
        if event in alert.when:
            try:
                find_webhook(alert).post(document)
            except (Refusal, Undelivered) as error:
                warn("the alert was not delivered", error)


def find_webhook(alert: Alert) -> Webhook:
    """The webhook of an alert. Raises `Refusal` if its URL is missing or not allowed."""
    url = os.environ.get(alert.webhook, "")
    if not url:
        raise Refusal(
            f"the environment variable {alert.webhook} is not set; expected the URL of a webhook"
        )
    return parse_webhook(url)


def find_problems(spec: Spec) -> tuple[str, ...]:
    """Problems of the webhooks that are visible without calling them, as `file:line: key: text`."""
    found = []
    for index, alert in enumerate(spec.alerts):
        try:
            find_webhook(alert)
        except Refusal as refusal:
            where = spec.where("alerts", index, "webhook")
            found.append(f"{where}: alerts.{index}.webhook: {refusal}")
    return tuple(found)
