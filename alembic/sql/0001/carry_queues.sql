-- Before a slot is emptied, records in the current one how far each of its queues was claimed and, unless a later row
-- shows it, how far it was numbered. So the numbers of a queue continue; claimed messages do not come back, whichever
-- slot is emptied first; and messages that expired unclaimed are counted for the next claim.
-- A queue is forgotten when nothing else is left of it and all was claimed. One that lost messages is forgotten with
-- the slot that got these rows, unless something was sent to it meanwhile: abandoned queues do not pile up.
CREATE FUNCTION {schema}.carry_queues(leaving smallint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
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
               latest.is_carried
        FROM queue
        CROSS JOIN LATERAL (
            SELECT m.number, m.slot FROM {schema}.message AS m
            WHERE m.address = queue.address AND m.number IS NOT NULL ORDER BY m.number LIMIT 1
        ) AS first
        CROSS JOIN LATERAL (
            SELECT m.number, m.slot, octet_length(m.payload) = 0 AS is_carried FROM {schema}.message AS m
            WHERE m.address = queue.address AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
        ) AS latest
        LEFT JOIN LATERAL (
            SELECT m.number FROM {schema}.message AS m
            WHERE m.address = 'claimed' || substr(queue.address, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
        ) AS claim ON true
    )
    INSERT INTO {schema}.message (slot, id, address, number, payload, published_at, expires_at)
    SELECT s.slot, 0, carried.address, carried.number, '', clock_timestamp(), clock_timestamp()
    FROM standing
    CROSS JOIN LATERAL (
        VALUES ('claimed' || substr(standing.address, 6), claimed), (standing.address, CASE WHEN latest_leaves THEN latest END)
    ) AS carried (address, number)
    CROSS JOIN {schema}.log_state AS s
    WHERE (NOT all_leave OR latest > claimed AND NOT is_carried)
      AND (carried.address <> standing.address OR carried.number > claimed);
END
$$
