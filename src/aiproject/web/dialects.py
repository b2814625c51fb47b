"""The dialects of this server: the form of errors for each group of addresses."""

from __future__ import annotations

from typing import Final

from aiproject.adapters.http.errors import STANDARD_DIALECTS
from aiproject.administration.dialect import AdministrationDialect
from aiproject.api.openai.routes import OPENAI_DIALECTS
from aiproject.protocols.dialects import Dialects

__all__ = ["DIALECTS"]

DIALECTS: Final = Dialects((*STANDARD_DIALECTS, *OPENAI_DIALECTS, AdministrationDialect()))
