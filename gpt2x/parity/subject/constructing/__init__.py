"""Calls a class or function of a user's with what its parameters and its config want, for a given architecture.

`meanings.py` knows what the names mean that people use; `architecture.py` is a config that answers to all of them;
`config.py` makes one of the user's own config class; `arguments.py` infers the arguments of a call; `constants.py`
gives module-level constants the architecture's sizes; `size.py` reads the size of a model from its parameters.
"""
