-- Where the log that is there now began, up to which id messages may have left it, and the greatest id so far.
-- A connection sees one log in its life: a crash that begins another one ends the connection.
CREATE FUNCTION {schema}.extent(OUT began_at bigint, OUT gone_until bigint, OUT last_id bigint)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.log_state) THEN
        PERFORM {schema}.start_epoch();
    END IF;
    SELECT s.began_at, s.gone_until, i.last_value + 511 INTO began_at, gone_until, last_id
    FROM {schema}.log_state AS s, {schema}.message_id AS i;
END
$$
