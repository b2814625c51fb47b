"""Reading the text in a picture: one POST with the whole picture, one answer.

`client` is our side, `server` the platform's (for the sandbox).
"""
