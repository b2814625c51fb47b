"""Prepares uploads for the platform: audio and pictures, validated by content and converted to fit its limits."""
