"""The interactive shell: ``batuta-sql shell``.

``shell`` reads and runs, ``reading`` knows where statements end, ``completion`` and ``names`` what
may be written, ``commands`` the dot commands, ``rendering`` how results look, ``live`` what is seen
while a query runs, ``preferences`` what a person has chosen.
"""
