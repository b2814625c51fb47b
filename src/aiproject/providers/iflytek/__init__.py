"""iFlytek's platform: Spark chat, dictation and OCR.

Sources: the vendor's documents, named in `aiproject.protocols.iflytek`.
"""
