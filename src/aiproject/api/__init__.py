"""The APIs: each converts requests into calls, and the events of a call into responses in its own format."""
