"""Every message for callers and operators, in Chinese and in English: one table, by code.

An error, an answer or a finding carries a code and parameters (`aiproject.codes`); its sentence is made here, where
the reader's language is known. The parts of the table stand in the modules beside this one.
"""
