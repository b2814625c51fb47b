"""The legacy API: the addresses of the original project that run calls, and their JSON.

Sources: the original project's document and the behaviour of the existing apps, `aiproject.protocols.legacy`.
"""
