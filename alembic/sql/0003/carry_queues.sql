-- Before a slot is emptied, records in the current one how far each of its queues was claimed and, unless a later row
-- shows it, how far it was numbered. So the numbers of a queue continue; claimed messages do not come back, whichever
-- slot is emptied first; and messages that expired unclaimed are counted for the next claim.
-- Messages that wait and have not expired move into the current slot, and so do those that are under work, until they
-- expire and their node is gone: a queue may keep messages for longer than the log.
-- A queue is forgotten when nothing else is left of it and all was claimed. One that lost messages is forgotten with
-- the slot that got these rows, unless something was sent to it meanwhile: abandoned queues do not pile up.
CREATE OR REPLACE FUNCTION {schema}.carry_queues(leaving smallint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment constant timestamptz := clock_timestamp();
    worked text;
BEGIN
    -- Probes the index once per address, and does not read it through.
    WITH RECURSIVE numbered AS (
        SELECT '' AS address
        UNION ALL
        SELECT (
            SELECT m.address FROM {schema}.message AS m
            WHERE m.slot = leaving AND m.number IS NOT NULL AND m.address > numbered.address ORDER BY m.address LIMIT 1
        )
        FROM numbered WHERE numbered.address IS NOT NULL
    ), queue AS (
        SELECT DISTINCT 'queue:' || substr(address, strpos(address, ':') + 1) AS address
        FROM numbered WHERE starts_with(address, 'queue:') OR starts_with(address, 'claimed:')
    ), standing AS (
        SELECT queue.address, coalesce(claim.number, first.number - 1) AS claimed, latest.number AS latest,
               latest.slot = leaving AS latest_leaves, latest.slot = leaving AND first.slot = leaving AS all_leave,
               latest.is_carried, latest.expires_at > moment AND NOT latest.is_carried AS latest_waits,
               EXISTS (
                   SELECT FROM {schema}.message AS m
                   WHERE m.address = 'working' || substr(queue.address, 6) AND m.number IS NOT NULL
               ) AS is_worked
        FROM queue
        CROSS JOIN LATERAL (
            SELECT m.number, m.slot FROM {schema}.message AS m
            WHERE m.address = queue.address AND m.number IS NOT NULL ORDER BY m.number LIMIT 1
        ) AS first
        CROSS JOIN LATERAL (
            SELECT m.number, m.slot, m.expires_at, octet_length(m.payload) = 0 AS is_carried FROM {schema}.message AS m
            WHERE m.address = queue.address AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
        ) AS latest
        LEFT JOIN LATERAL (
            SELECT m.number FROM {schema}.message AS m
            WHERE m.address = 'claimed' || substr(queue.address, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
        ) AS claim ON true
    )
    INSERT INTO {schema}.message (slot, id, address, channel, number, attempts, payload, published_at, expires_at)
    SELECT s.slot, carried.*
    FROM standing
    CROSS JOIN LATERAL (
        SELECT 0, 'claimed' || substr(standing.address, 6), NULL, claimed, NULL::integer, '\x'::bytea, moment, moment
        WHERE NOT all_leave OR is_worked OR latest > claimed AND NOT is_carried
        UNION ALL
        SELECT 0, standing.address, NULL, latest, NULL, '', moment, moment
        WHERE latest_leaves AND latest > claimed AND NOT latest_waits AND NOT (all_leave AND is_carried)
        UNION ALL
        SELECT m.id, m.address, m.channel, m.number, m.attempts, m.payload, m.published_at, m.expires_at
        FROM {schema}.message AS m
        WHERE m.address = standing.address AND m.number > claimed AND m.slot = leaving
          AND m.expires_at > moment AND octet_length(m.payload) > 0
    ) AS carried
    CROSS JOIN {schema}.log_state AS s;

    -- A statement behind the other: what was claimed before that has been taken here already.
    FOR worked IN
        WITH RECURSIVE numbered AS (
            SELECT '' AS address
            UNION ALL
            SELECT (
                SELECT m.address FROM {schema}.message AS m
                WHERE m.slot = leaving AND m.number IS NOT NULL AND m.address > numbered.address ORDER BY m.address LIMIT 1
            )
            FROM numbered WHERE numbered.address IS NOT NULL
        )
        SELECT address FROM (
            SELECT DISTINCT substr(address, strpos(address, ':')) AS name FROM numbered
            WHERE split_part(address, ':', 1) IN ('queue', 'working', 'done', 'open')
        ) AS found
        CROSS JOIN LATERAL (
            SELECT 'queue' || found.name AS address FROM {schema}.message AS m
            WHERE m.address = 'working' || found.name AND m.number IS NOT NULL LIMIT 1
        ) AS worked
        ORDER BY 1
    LOOP
        PERFORM {schema}.carry_work(leaving, worked);
    END LOOP;
END
$$
