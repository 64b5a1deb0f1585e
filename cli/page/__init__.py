"""The report's page: what a run's files say, as plain data (`data.py`), and that data as one HTML file (`page.py`)."""

GENERATOR = "keepbest report"
"""By which a file is known as a report: its `<meta name="generator">`."""
