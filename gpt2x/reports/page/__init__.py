"""task=report: the runs in a folder as one self-contained HTML page."""
