"""The permissions of each credential, as a table that docs/en/explanation/accounts.md explains. No I/O."""

from __future__ import annotations

from enum import StrEnum

from aiproject.accounts.principal.principal import Credential

__all__ = ["NEEDS", "Action", "Requirement"]


class Action(StrEnum):
    """An action on an account over ``/v1/account``."""

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
    """What an action requires in addition to the credential.

    A reauthentication uses one of the methods of `aiproject.accounts.identity.reauthentication`, of which the password
    is currently the only one.
    """

    NOTHING = "yes"
    REAUTHENTICATION = "after a reauthentication"
    REFUSED = "no"


# (uuid and username, session). An action that gives access to others, or takes it from the owner, needs a
# reauthentication, so that neither an unattended browser nor a copied file of the app is sufficient. An API key is
# given to programs and manages nothing.
_TABLE: dict[Action, tuple[Requirement, Requirement]] = {
    Action.READ: (Requirement.NOTHING, Requirement.NOTHING),
    Action.EDIT: (Requirement.REAUTHENTICATION, Requirement.NOTHING),
    Action.CHANGE_EMAIL: (Requirement.REAUTHENTICATION, Requirement.REAUTHENTICATION),
    Action.VERIFY_EMAIL: (Requirement.REAUTHENTICATION, Requirement.NOTHING),
    Action.CHANGE_PASSWORD: (Requirement.REAUTHENTICATION, Requirement.REAUTHENTICATION),
    Action.ROTATE_UUID: (Requirement.REAUTHENTICATION, Requirement.REAUTHENTICATION),
    Action.DELETE: (Requirement.REAUTHENTICATION, Requirement.REAUTHENTICATION),
    Action.USE_SESSION: (Requirement.REFUSED, Requirement.NOTHING),
    Action.END_SESSIONS: (Requirement.REAUTHENTICATION, Requirement.NOTHING),
    Action.CREATE_KEY: (Requirement.REAUTHENTICATION, Requirement.REAUTHENTICATION),
    Action.EDIT_KEY: (Requirement.REAUTHENTICATION, Requirement.REAUTHENTICATION),
    Action.REVOKE_KEY: (Requirement.REAUTHENTICATION, Requirement.NOTHING),
}

NEEDS: dict[tuple[Action, Credential], Requirement] = {
    **{(action, Credential.UUID): by_uuid for action, (by_uuid, _) in _TABLE.items()},
    **{(action, Credential.SESSION): by_session for action, (_, by_session) in _TABLE.items()},
    **{(action, Credential.API_KEY): Requirement.REFUSED for action in Action},
}
"""The requirement of each action and credential; combinations that are not listed are refused."""
