"""Which credential may do what to an account: the one table, told in docs/en/explanation/accounts.md. No I/O."""

from __future__ import annotations

from enum import StrEnum

from aiproject.accounts.principal.principal import Credential

__all__ = ["NEEDS", "Action", "Requirement"]


class Action(StrEnum):
    """What somebody may want to do to an account over ``/v1/account``."""

    READ = "read the profile, the sessions and the keys"
    EDIT = "change the academy"
    CHANGE_EMAIL = "change the e-mail address"
    VERIFY_EMAIL = "have a verification mail sent"
    CHANGE_PASSWORD = "change the password"  # noqa: S105 - an act
    ROTATE_UUID = "have a new uuid"
    DELETE = "delete the account"
    USE_SESSION = "look at, or end, the session that asks"
    END_SESSIONS = "end sessions"
    CREATE_KEY = "create an API key"
    EDIT_KEY = "change an API key"
    REVOKE_KEY = "revoke an API key"


class Requirement(StrEnum):
    """What a credential needs beside itself."""

    NOTHING = "yes"
    PASSWORD = "with the password"  # noqa: S105
    REFUSED = "no"


# (uuid and username, session). What opens a new door, or closes the owner's, needs the password, so that neither a
# browser left open nor a copied file of the app is enough. An API key is handed to programs: it manages nothing.
_TABLE: dict[Action, tuple[Requirement, Requirement]] = {
    Action.READ: (Requirement.NOTHING, Requirement.NOTHING),
    Action.EDIT: (Requirement.PASSWORD, Requirement.NOTHING),
    Action.CHANGE_EMAIL: (Requirement.PASSWORD, Requirement.PASSWORD),
    Action.VERIFY_EMAIL: (Requirement.PASSWORD, Requirement.NOTHING),
    Action.CHANGE_PASSWORD: (Requirement.PASSWORD, Requirement.PASSWORD),
    Action.ROTATE_UUID: (Requirement.PASSWORD, Requirement.PASSWORD),
    Action.DELETE: (Requirement.PASSWORD, Requirement.PASSWORD),
    Action.USE_SESSION: (Requirement.REFUSED, Requirement.NOTHING),
    Action.END_SESSIONS: (Requirement.PASSWORD, Requirement.NOTHING),
    Action.CREATE_KEY: (Requirement.PASSWORD, Requirement.PASSWORD),
    Action.EDIT_KEY: (Requirement.PASSWORD, Requirement.PASSWORD),
    Action.REVOKE_KEY: (Requirement.PASSWORD, Requirement.NOTHING),
}

NEEDS: dict[tuple[Action, Credential], Requirement] = {
    **{(act, Credential.UUID): by_uuid for act, (by_uuid, _) in _TABLE.items()},
    **{(act, Credential.SESSION): by_session for act, (_, by_session) in _TABLE.items()},
    **{(act, Credential.API_KEY): Requirement.REFUSED for act in Action},
}
"""What is not listed is refused."""
