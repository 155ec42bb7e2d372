"""Run cards and the index of reports: their document, charts, pages."""
