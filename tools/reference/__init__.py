"""Writes the reference pages that follow from the code, in English and Chinese.

The English texts are those of the declarations: the ``description`` of a setting, the help of a command and of its
options. Their Chinese stands in ``zh.toml``, keyed by the English text, as in gettext's catalogues: a text that is
changed in the code loses its translation, and `Untranslated` says so, rather than leaving a stale sentence in place.
"""
