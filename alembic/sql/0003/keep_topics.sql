-- Before a slot is emptied, copies the messages to topics that are kept for longer into a kept slot. Kept slots are
-- further slots of the log, from 100 on. Each is filled for half of the longest of these retentions, and emptied when it
-- was filled longer ago than that.
CREATE OR REPLACE FUNCTION {schema}.keep_topics(leaving smallint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = on  -- it reads the whole slot
AS $$
DECLARE
    longest constant interval := (SELECT max(retention) FROM {schema}.kept_topic);
    kept smallint;
BEGIN
    IF longest IS NULL THEN
        RETURN;
    END IF;
    UPDATE {schema}.kept_slot SET filled_at = clock_timestamp() WHERE filled_at IS NULL AND began_at + longest / 2 <= clock_timestamp();
    SELECT k.slot INTO kept FROM {schema}.kept_slot AS k WHERE k.filled_at IS NULL;
    IF NOT FOUND THEN
        SELECT min(number) INTO STRICT kept FROM generate_series(100, 32767) AS number
        WHERE number NOT IN (SELECT slot FROM {schema}.kept_slot);
        PERFORM {schema}.make_slot(kept);
        INSERT INTO {schema}.kept_slot (slot, began_at) VALUES (kept, clock_timestamp());
    END IF;
    INSERT INTO {schema}.message (slot, id, address, channel, key, payload, published_at, expires_at, has_own_expiry)
    SELECT kept, m.id, m.address, m.channel, m.key, m.payload, m.published_at, m.expires_at, m.has_own_expiry
    FROM {schema}.message AS m
    WHERE m.slot = leaving AND EXISTS (
        SELECT FROM {schema}.kept_topic AS k
        WHERE m.address = k.address OR k.is_pattern AND starts_with(m.address, k.address)
    );
    UPDATE {schema}.kept_slot SET last_id = greatest(last_id, (SELECT f.last_id FROM {schema}.filled_slot AS f WHERE f.slot = leaving))
    WHERE slot = kept;
END
$$
