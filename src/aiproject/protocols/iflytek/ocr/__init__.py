"""The OCR protocol: one POST with the whole picture, one answer with its text.

`client` is our side, `server` the platform's (for the sandbox).
"""
