"""iFlytek's platform: Spark chat, dictation and picture text.

Sources: the vendor's documents, named in `aiproject.protocols.iflytek`.
"""
