"""What a subject is compared with.

The *oracle* is transformers' GPT2LMHeadModel. A *record* is what it answered, as data. A *saved record* is a record
in a file, with which a subject can be validated where transformers is not installed.
"""
