"""Who somebody is: accounts, registration, login and the identity of a call."""
