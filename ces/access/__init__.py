"""Who gets in, and who may do what.

Pure: no sockets, no clock. Rights come from one file, and only from there. They only allow: there is no order
in which they are read, and what nothing allows is not allowed. ::

    principal.py   Principal: what one may do. Login: who a connection is, and until when
    token.py       tokens, and the salted hashes that the file has of them
    signed.py      JSON Web Tokens, by keys that the file has
    table.py       Access: from what is shown (Shown) to a Login
    file.py        the access file
    bearer.py      the token that this process shows where it dials

The way of a question: a request -> `Shown` -> `Access.login` -> `Login` -> `Principal.kinds`, `.publish`,
`.subscribe`. Who asks it is `ces.ops.gate`; the login stays with the connection and its link.
"""
