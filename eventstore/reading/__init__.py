"""The read side of a group: what its list says of accounts and their entries (CQRS).

side.py       the face: frames in; what it keeps; open and drop
answers.py    what can be asked: accounts, entries, a balance at a time
books.py      all of it at one moment, by pages, for audit and export
follower.py   a thread that reads frames as far as they are answerable

clerk.py      a frame into accounts and entries; the loop is in entering.py
heads.py      of each account what its next entry has to follow on
texts.py      the text that an entry's chain is the digest of; sha256.py digests it
block.py      new entries, in memory

keeper.py     a thread that writes blocks as runs, merges runs, and says what is believed
run.py        entries in a file that is never changed: run_format.py, run_writer.py, merging.py
heads_file.py all accounts after a frame, in a file
manifest.py   which files are believed
history.py    the entries of one account, in runs and in blocks

view.py       what those who ask may look at, and when: moments.py
"""
