"""Browser sessions: rows, cookies and lifetimes."""
