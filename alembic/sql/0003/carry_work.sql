-- Moves what is under work in a queue from a slot that is emptied into the current one: the messages, and who works on
-- them until when. What was done leaves with the slot, so writes down what is still under work.
CREATE FUNCTION {schema}.carry_work(leaving smallint, queue text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    works constant text := 'working' || substr(queue, 6);
    moment constant timestamptz := clock_timestamp();
    log record;
    kept bigint[];
BEGIN
    log := {schema}.lock_addresses(ARRAY['claimed' || substr(queue, 6)]);
    kept := ARRAY(
        SELECT w.number FROM {schema}.open_work(queue) AS w
        CROSS JOIN LATERAL (
            SELECT FROM {schema}.message AS m
            WHERE m.address = queue AND m.number = w.number AND (m.expires_at > moment OR NOT w.is_abandoned) LIMIT 1
        ) AS message
        ORDER BY w.number
    );
    INSERT INTO {schema}.message (slot, id, address, channel, number, attempts, payload, published_at, expires_at)
    SELECT log.slot, m.id, m.address, m.channel, m.number, m.attempts, m.payload, m.published_at, m.expires_at
    FROM unnest(ARRAY[queue, works]) AS part (address)
    CROSS JOIN unnest(kept) AS under_work (number)
    CROSS JOIN LATERAL (
        SELECT * FROM {schema}.message AS found
        WHERE found.address = part.address AND found.number = under_work.number ORDER BY found.slot = leaving LIMIT 1
    ) AS m
    WHERE m.slot = leaving;
    IF EXISTS (SELECT FROM {schema}.message AS m WHERE m.address = works AND m.number IS NOT NULL AND m.slot <> leaving) THEN
        PERFORM {schema}.note_open_work(queue, log.slot, kept);
    END IF;
END
$$
