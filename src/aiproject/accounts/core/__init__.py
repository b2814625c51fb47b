"""The account itself: its model, its rows, registration, login and profile."""
