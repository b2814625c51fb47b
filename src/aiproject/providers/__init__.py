"""The providers: vendors' services behind one contract.

`base` is the contract, `iflytek` fulfils it for the platform, and `wiring` opens what the settings name. Calls depend
on the contract alone.
"""
