-- Returns where a topic stands for the snapshot of the caller, as the text of a position: every message that the
-- snapshot shows has this position or an earlier one, every other message, committed later, has a greater one.
-- Not where the sequence stands: a smaller id may be under way. The last visible id is not past such a message, since
-- ids of a topic grow in commit order, nor is `filled_until`: rotate() waited for all that had taken an id until then.
-- Whatever the log has lost lies before it, so a reader who begins here soon meets no gap.
-- Without a log, the position is before all that a later one can have.
CREATE FUNCTION {schema}.position(topic text, prefix text DEFAULT 'asgi') RETURNS text
LANGUAGE plpgsql STABLE  -- the snapshot of the statement that calls it
SET search_path = pg_catalog, pg_temp
SET enable_indexscan = on  -- anybody may call it, on any connection: see PIN_SETTINGS
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
    wanted constant text := {schema}.topic_address(topic, prefix);
    place bigint;
BEGIN
    SELECT m.id INTO place FROM {schema}.message AS m WHERE m.address = wanted ORDER BY m.id DESC LIMIT 1;
    SELECT greatest(place, s.filled_until) INTO place FROM {schema}.log_state AS s;
    IF NOT FOUND THEN
        SELECT l.epoch::bigint << 53 INTO place FROM {schema}.log AS l;
    END IF;
    RETURN (place >> 53) || '-' || (place & 9007199254740991);
END
$$
