"""Changes that users make to their own account: recovery, verification, editing and deletion."""
