"""What people do to their own account: recovery, verification, editing and deletion."""
