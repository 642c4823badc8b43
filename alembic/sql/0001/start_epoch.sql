-- Begins the log anew: on the first message ever, and after a crash or a failover emptied the unlogged tables.
-- Ids never fall behind positions that somebody kept. The epoch is their upper part. The lower one begins with the time
-- since 2026, at 8192 blocks of 512 ids a second: a standby that took over may not have heard of the last epoch.
CREATE FUNCTION {schema}.start_epoch() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    new_epoch bigint;
    first_id bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('{schema}'), 66);
    IF NOT EXISTS (SELECT FROM {schema}.log_state) THEN
        UPDATE {schema}.log SET epoch = epoch + 1 RETURNING epoch INTO STRICT new_epoch;
        first_id := (new_epoch << 53)
            + ((extract(epoch FROM clock_timestamp() - timestamptz '2026-01-01 00:00Z') * 8192)::bigint << 9);
        PERFORM setval('{schema}.message_id', first_id);
        INSERT INTO {schema}.log_state (slot, rotated_at, began_at, gone_until) VALUES (0, clock_timestamp(), first_id, first_id);
    END IF;
END
$$
