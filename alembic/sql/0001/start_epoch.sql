-- Begins the log anew: on the first message ever, and after a crash emptied the unlogged tables.
-- The epoch is the upper part of every id, so that ids never fall behind positions that somebody kept.
CREATE FUNCTION {schema}.start_epoch() RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    new_epoch bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('{schema}'), 64);
    IF NOT EXISTS (SELECT FROM {schema}.log_state) THEN
        UPDATE {schema}.log SET epoch = epoch + 1 RETURNING epoch INTO STRICT new_epoch;
        PERFORM setval('{schema}.message_id', new_epoch << 49);
        INSERT INTO {schema}.log_state (slot, rotated_at) VALUES (0, clock_timestamp());
    END IF;
    RETURN (SELECT slot FROM {schema}.log_state);
END
$$
