-- Saves what a crash would take from a durable log: `log_state`, `filled_slot` and `kept_slot`, which stay unlogged. That they are
-- empty tells that there was a crash, or that a standby was promoted.
-- Nothing is saved while new messages go into an unlogged slot: a crash then loses the log.
CREATE FUNCTION {schema}.save_state() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state_now jsonb;
    filled_now jsonb;
    kept_now jsonb;
BEGIN
    IF {schema}.is_logged((SELECT slot FROM {schema}.log_state)) THEN
        SELECT to_jsonb(s) - ARRAY['swept_until', 'server_started_at', 'file', 'filenode'] INTO state_now FROM {schema}.log_state AS s;
        SELECT coalesce(jsonb_agg(to_jsonb(f) ORDER BY f.slot), '[]') INTO filled_now FROM {schema}.filled_slot AS f;
        SELECT coalesce(jsonb_agg(to_jsonb(k) ORDER BY k.slot), '[]') INTO kept_now FROM {schema}.kept_slot AS k;
    END IF;
    UPDATE {schema}.durability SET state = state_now, filled = filled_now, kept = kept_now
    WHERE (state, filled, kept) IS DISTINCT FROM (state_now, filled_now, kept_now);
END
$$
