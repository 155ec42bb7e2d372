"""The demo: its data and its run. Nothing else imports it."""
