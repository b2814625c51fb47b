"""The legacy API: the six addresses of the original project and their JSON."""
