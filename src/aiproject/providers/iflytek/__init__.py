"""iFlytek's services as providers."""
