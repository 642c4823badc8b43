-- Returns the extent of the log: its identity and the first id under it; its earlier identities, each with its first
-- and its last id; where the log began; the last id before the current slot; up to which id messages may have left the
-- log; and the greatest id so far.
CREATE OR REPLACE FUNCTION {schema}.extent(
    OUT identity bigint, OUT identity_from bigint, OUT former bigint[],
    OUT began_at bigint, OUT filled_until bigint, OUT gone_until bigint, OUT last_id bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Without a look at the sequence, whose lock nobody may hold who waits to begin an epoch; see mend_sequence().
    PERFORM FROM {schema}.log_state AS s
    WHERE s.server_started_at = pg_postmaster_start_time() AND s.file = pg_relation_filepath(s.tableoid);
    IF NOT FOUND THEN
        PERFORM {schema}.start_epoch();
    END IF;
    LOOP
        SELECT s.identity, s.identity_from, s.former, s.began_at, s.filled_until, s.gone_until, i.last_value + 511
        INTO identity, identity_from, former, began_at, filled_until, gone_until, last_id
        FROM {schema}.log_state AS s, {schema}.message_id AS i;
        EXIT WHEN identity_from <= last_id - 511;
        PERFORM {schema}.start_epoch();  -- the sequence was set back, as at the end of a restored dump
    END LOOP;
END
$$
