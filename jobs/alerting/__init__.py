"""Messages about a night, sent to webhooks."""
