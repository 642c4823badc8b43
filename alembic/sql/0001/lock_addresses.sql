-- Makes everybody who sends to these addresses, or begins to host them, wait for the end of this transaction; rotate()
-- and the start of a new epoch wait, too. Returns the slot that takes new rows until then, and the last id before it.
-- Ids taken under this lock grow in commit order. All lock the stripes in the same order, so there is no deadlock.
-- These are rows, not advisory locks, so nobody without privileges can hold them.
CREATE FUNCTION {schema}.lock_addresses(addresses text[], OUT slot smallint, OUT filled_until bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    address text;
    stripe smallint;
    stripes smallint[] := '{}';
    is_locked boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE feature_not_supported USING MESSAGE =
            format('pgchannels needs transactions that are read committed, transaction_isolation is %s', current_setting('transaction_isolation'));
    END IF;
    FOREACH address IN ARRAY addresses LOOP
        -- Claims from a queue do not wait for sends to it.
        stripe := hashtext(address) & 63 | CASE WHEN starts_with(address, 'claimed:') THEN 64 ELSE 0 END;
        stripes[stripe] := stripe;
    END LOOP;
    LOOP
        PERFORM FROM {schema}.stripe AS s WHERE s.number = ANY (stripes) ORDER BY s.number FOR UPDATE;
        is_locked := FOUND;
        SELECT s.slot, s.filled_until INTO slot, filled_until FROM {schema}.log_state AS s  -- a statement behind the lock
        WHERE s.server_started_at = pg_postmaster_start_time() AND s.filenode = pg_relation_filenode(s.tableoid);
        EXIT WHEN FOUND AND (is_locked OR stripes = '{}');
        PERFORM {schema}.start_epoch();
    END LOOP;
END
$$
