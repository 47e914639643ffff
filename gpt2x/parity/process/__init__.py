"""The process in which a subject's code runs, and how the process of gpt2x asks it.

`fork_server.py` starts a server once per process of gpt2x, which runs `server.py`: it imports torch, runs nothing, and
forks a process for each subject. `child.py` is what runs there; `remote.py` is the subject as gpt2x sees it. They
exchange plain data and tensors over a `channel.py`; nothing that the subject's process sends is executed.
"""
