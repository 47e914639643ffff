"""Takes from a user's file what defines the model, and leaves out the script around it.

`statements.py` finds in the syntax tree what each statement binds and needs; `module.py` runs the statements that a
name needs when somebody asks for the name; `finder.py` finds the sibling modules and has them treated the same way;
`placeholder.py` stands for what could not be made; `confined.py` keeps the file from parsing gpt2x's arguments, from
the network, and from running for ever.
"""
