-- For people: the work queues that hold messages, have receivers, or get copies from topics.
-- Probes the index once per queue, and does not read it through: a backlog of any length costs the same. What is in
-- progress is what open_work() returns, written out for readers of the view, who may not call it.
CREATE OR REPLACE VIEW {schema}.queue_status AS
WITH RECURSIVE numbered AS (
    (SELECT m.address FROM {schema}.message AS m WHERE m.number IS NOT NULL ORDER BY m.address LIMIT 1)
    UNION ALL
    SELECT (
        SELECT m.address FROM {schema}.message AS m
        WHERE m.number IS NOT NULL AND m.address > numbered.address ORDER BY m.address LIMIT 1
    )
    FROM numbered WHERE numbered.address IS NOT NULL
), queue AS (
    SELECT address FROM numbered WHERE starts_with(address, 'queue:')
    UNION SELECT s.address FROM {schema}.subscription AS s WHERE starts_with(s.address, 'queue:')
    UNION SELECT m.queue FROM {schema}.member AS m WHERE m.expires_at IS NULL OR m.expires_at > clock_timestamp()
)
SELECT
    queue.address,
    split_part(queue.address, ':', 2) AS prefix,
    substring(queue.address FROM '^[^:]*:[^:]*:(.*)$') AS name,
    -- Numbers have no holes, and messages expire from the front.
    coalesce(latest.number - oldest.number + 1, 0) AS waiting,
    oldest.published_at AS waiting_since,
    (SELECT count(*) FROM {schema}.subscription AS s WHERE s.address = queue.address) AS nodes,
    (
        SELECT count(*) FROM {schema}.member AS m
        WHERE m.queue = queue.address AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp())
    ) AS groups,
    work.in_progress
FROM queue
LEFT JOIN LATERAL (
    SELECT m.number, m.published_at FROM {schema}.message AS m
    WHERE m.address = queue.address AND m.expires_at > clock_timestamp()
      AND m.number > coalesce((
          SELECT c.number FROM {schema}.message AS c
          WHERE c.address = 'claimed' || substr(queue.address, 6) AND c.number IS NOT NULL ORDER BY c.number DESC LIMIT 1
      ), 0)
    ORDER BY m.number LIMIT 1
) AS oldest ON true
LEFT JOIN LATERAL (
    SELECT m.number FROM {schema}.message AS m
    WHERE m.address = queue.address AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
) AS latest ON true
LEFT JOIN LATERAL (
    SELECT m.channel::bigint[] AS numbers FROM {schema}.message AS m
    WHERE m.address = 'open' || substr(queue.address, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
) AS noted ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS in_progress
    FROM (
        SELECT found.* FROM unnest(noted.numbers[2:]) AS listed (number)
        CROSS JOIN LATERAL (
            SELECT m.number, m.id FROM {schema}.message AS m
            WHERE m.address = 'working' || substr(queue.address, 6) AND m.number = listed.number LIMIT 1
        ) AS found
        UNION ALL
        SELECT m.number, m.id FROM {schema}.message AS m
        WHERE m.address = 'working' || substr(queue.address, 6) AND m.number > coalesce(noted.numbers[1], 0)
    ) AS w
    LEFT JOIN LATERAL (
        SELECT true AS has_ended FROM {schema}.message AS e
        WHERE e.address = 'done' || substr(queue.address, 6) AND e.number = w.number AND e.id = w.id LIMIT 1
    ) AS e ON true
    WHERE e.has_ended IS NULL
) AS work
