-- Before a slot is emptied, records up to which id messages are gone, for all topics and channels in a fixed space: the
-- greatest id for each of 16384 hashes of addresses; see gone(). The record is a row with the address 'gone:' in the
-- current slot, written if it changes, or would leave; the one with the greatest number counts. A slot with more than 20,000 addresses counts for all hashes.
-- Topics that are kept for longer are gone when their kept slot is emptied.
CREATE FUNCTION {schema}.note_gone(leaving smallint, last_id bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    noted record;
    ids bigint[];
    last record;
    addresses integer := 0;
BEGIN
    SELECT m.slot, m.number, m.channel::bigint[] AS ids INTO noted FROM {schema}.message AS m
    WHERE m.address = 'gone:' AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1;
    ids := coalesce(noted.ids, array_fill((SELECT s.gone_until FROM {schema}.log_state AS s), ARRAY[16384]));
    -- Probes the index once per address, and does not read it through.
    FOR last IN
        WITH RECURSIVE found AS (
            SELECT '' AS address
            UNION ALL
            SELECT (
                SELECT m.address FROM {schema}.message AS m
                WHERE m.slot = leaving AND m.address > found.address ORDER BY m.address LIMIT 1
            )
            FROM found WHERE found.address IS NOT NULL
        )
        SELECT 1 + (hashtextextended(found.address, 0) & 16383) AS hash, (
                SELECT m.id FROM {schema}.message AS m
                WHERE m.slot = leaving AND m.address = found.address ORDER BY m.id DESC LIMIT 1
            ) AS id
        FROM found
        WHERE (starts_with(found.address, 'topic:') OR starts_with(found.address, 'node:')) AND (leaving >= 100 OR NOT EXISTS (
            SELECT FROM {schema}.kept_topic AS k
            WHERE found.address = k.address OR k.is_pattern AND starts_with(found.address, k.address)
        ))
    LOOP
        addresses := addresses + 1;
        IF addresses > 20000 THEN
            ids := array_fill(last_id, ARRAY[16384]);
            EXIT;
        END IF;
        ids[last.hash] := greatest(ids[last.hash], last.id);
    END LOOP;
    IF addresses > 0 OR noted.slot = leaving OR noted.slot IS NULL THEN
        INSERT INTO {schema}.message (slot, id, address, channel, number, payload, published_at, expires_at)
        SELECT s.slot, 0, 'gone:', ids::text, coalesce(noted.number, 0) + 1, '', clock_timestamp(), clock_timestamp()
        FROM {schema}.log_state AS s;
    END IF;
END
$$
