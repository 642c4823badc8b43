-- Empties the kept slots whose time is over, see keep_topics(); returns whether there was one.
CREATE FUNCTION {schema}.empty_kept_slots() RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    longest constant interval := (SELECT max(retention) FROM {schema}.kept_topic);
    kept record;
    is_emptied boolean := false;
BEGIN
    UPDATE {schema}.kept_slot SET began_at = clock_timestamp() WHERE began_at > clock_timestamp();  -- the clock was set back
    UPDATE {schema}.kept_slot SET filled_at = clock_timestamp()
    WHERE filled_at > clock_timestamp() OR filled_at IS NULL AND longest IS NULL;
    FOR kept IN
        SELECT k.slot, k.filled_at, k.last_id FROM {schema}.kept_slot AS k
        WHERE k.filled_at + coalesce(longest, '0') <= clock_timestamp()
    LOOP
        CONTINUE WHEN NOT {schema}.can_be_emptied(kept.slot);
        BEGIN
            PERFORM {schema}.note_gone(kept.slot, kept.last_id);
            EXECUTE format('TRUNCATE {schema}.message_%s', kept.slot);
            DELETE FROM {schema}.kept_slot WHERE slot = kept.slot;
            UPDATE {schema}.log_state SET kept_gone_until = greatest(kept_gone_until, kept.last_id), kept_gone_at = greatest(kept_gone_at, kept.filled_at);
            is_emptied := true;
        EXCEPTION WHEN lock_not_available THEN
            NULL;  -- the next rotation empties it
        END;
    END LOOP;
    RETURN is_emptied;
END
$$
