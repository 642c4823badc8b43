-- Begins the log, or continues it under a new identity.
-- The log begins anew on the first message ever, and after a crash or a failover emptied the unlogged tables. Ids never
-- fall behind positions that somebody kept. Their upper part is the epoch, which stays at 1023 once it gets there. The
-- lower part begins with the time since 2026, at 8192 blocks of 512 ids a second: a standby that took over may not have
-- heard of the last epoch.
-- A log that exists, but was written before this start of the server, or in another file (whose path names the
-- database, too), may be the one from before a restart, or a copy of that from a backup, a dump or a template. It gets
-- a new identity, and its ids continue with the time, too: a node that knows the former identity up to an id beyond
-- `former` has seen messages that this log never had. All nodes must register again: until then, none is notified of
-- messages of a log that it does not know.
-- ON CONFLICT names its key: while a dump is being restored, before there are indexes, this fails and nothing begins.
CREATE FUNCTION {schema}.start_epoch() RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER  -- nobody else may change what is there
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lasting constant bigint := (extract(epoch FROM clock_timestamp() - timestamptz '2026-01-01 00:00+00') * 8192)::bigint << 9;
    new_identity constant bigint := hashtextextended(gen_random_uuid()::text, 0);
    known record;
    new_epoch bigint;
    first_id bigint;
    lost_at timestamptz;
BEGIN
    PERFORM FROM {schema}.log FOR UPDATE;
    SELECT s.*, pg_relation_filepath(s.tableoid) AS file_now INTO known FROM {schema}.log_state AS s;  -- a statement behind the lock
    INSERT INTO {schema}.stripe (number) SELECT generate_series(-1, 127) ON CONFLICT (number) DO NOTHING;
    IF known IS NULL THEN
        UPDATE {schema}.log SET epoch = least(epoch + 1, 1023) RETURNING epoch INTO STRICT new_epoch;
        first_id := (new_epoch << 53) + lasting;
        -- Before the first epoch, there was nothing to lose.
        lost_at := CASE WHEN new_epoch = 1 THEN '-infinity' ELSE clock_timestamp() END;
        PERFORM setval('{schema}.message_id', first_id);
        INSERT INTO {schema}.log_state
            (slot, rotated_at, began_at, lost_at, filled_until, gone_until, gone_at,
             kept_gone_until, kept_gone_at, identity, identity_from, former, server_started_at, file, filenode)
        VALUES (0, clock_timestamp(), first_id, lost_at, first_id, first_id, lost_at, first_id, lost_at, new_identity, first_id, '{}',
                pg_postmaster_start_time(), pg_relation_filepath('{schema}.log_state'::regclass),
                pg_relation_filenode('{schema}.log_state'::regclass));
    ELSIF known.server_started_at <> pg_postmaster_start_time() OR known.file <> known.file_now
          OR known.identity_from > (SELECT last_value FROM {schema}.message_id) THEN
        SELECT greatest((known.began_at >> 53 << 53) + lasting, last_value + 512) INTO first_id FROM {schema}.message_id;
        UPDATE {schema}.log_state SET
            former = former || ARRAY[[identity, identity_from, (SELECT last_value + 511 FROM {schema}.message_id)]],
            identity = new_identity, identity_from = first_id,
            server_started_at = pg_postmaster_start_time(), file = known.file_now, filenode = pg_relation_filenode(tableoid);
        PERFORM setval('{schema}.message_id', first_id);
        -- Except those that are about to learn of it: waiting for them could be a deadlock.
        DELETE FROM {schema}.node WHERE id = ANY (ARRAY(SELECT id FROM {schema}.node FOR UPDATE SKIP LOCKED));
        DELETE FROM {schema}.subscription WHERE node NOT IN (SELECT id FROM {schema}.node);
        DELETE FROM {schema}.full_channel WHERE node NOT IN (SELECT id FROM {schema}.node);
    END IF;
END
$$
