"""Authentication and authorization of requests: from credentials to a `Principal`."""
