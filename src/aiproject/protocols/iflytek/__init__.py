"""Protocol cores of iFlytek's platform."""
