"""The Spark chat protocol over websocket: requests, answers, frames and the platform's half."""
