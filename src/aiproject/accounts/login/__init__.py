"""What protects logins: the throttle of failed attempts and the password policy."""
