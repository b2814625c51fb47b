"""Administration over HTTP: administrators, their roles, and the addresses that the original's console calls."""
