"""Sans-I/O implementations of the iFlytek platform's protocols."""
