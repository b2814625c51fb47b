"""The authenticated caller of a request and what it may do."""
