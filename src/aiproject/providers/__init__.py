"""The providers: vendors' services behind one contract.

`base` defines the contract, `iflytek` implements it for iFlytek's platform, and `wiring` opens the providers that the
settings name. Calls depend on the contract alone.
"""
