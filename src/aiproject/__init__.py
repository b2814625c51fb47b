"""AiProject: accounts, exact quotas and a fast relay in front of iFlytek's AI services."""

__version__ = "0.1.0"
