"""Is this state of the code worse than that one? Two commits measured side by side, or two folders of records compared.

``side`` puts two states of the code into folders, ``worker`` talks to a process that measures one of them, ``plan`` says what is measured,
``figures`` takes what no noise touches, ``schedule`` lets both take turns at what is timed; ``exact`` and ``timing`` judge, ``folders``
judges records, ``report`` shows. ``compare`` is all of it for two commits.
"""
