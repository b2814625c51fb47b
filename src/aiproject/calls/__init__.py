"""One call from admission to settlement, for every API and every provider.

`chat` and `unary` hold the order of things once: limits, idempotency, hold, question, settlement. An API
(`aiproject.api`) identifies the caller, makes a neutral request of what it received and writes the events of the answer
in its own format; a provider (`aiproject.providers`) answers. Nothing here is named after either.
"""
