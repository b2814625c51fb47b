"""Running the house over HTTP: administrators, their roles, and the addresses that the original's console calls."""

from aiproject.administration.model import Administrator, Role
from aiproject.administration.service import Administrators

__all__ = ["Administrator", "Administrators", "Role"]
