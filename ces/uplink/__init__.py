"""One dialled link with its session, its spool and its retries."""
