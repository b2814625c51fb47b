"""One call from admission to settlement, for every API and every provider.

`chat` and `unary` implement the sequence once: limits, idempotency, hold, question, settlement. An API
(`aiproject.api`) identifies the caller, converts its request into a neutral one and writes the events of the answer in
its own format; a provider (`aiproject.providers`) answers. Nothing here depends on a particular API or vendor.
"""
