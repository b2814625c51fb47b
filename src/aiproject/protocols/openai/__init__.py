"""OpenAI's HTTP API: its requests, its answers and its errors, as neutral chats and back.

Source: OpenAI, "API reference", Chat Completions; checked against what the official Python SDK sends and reads.
"""
