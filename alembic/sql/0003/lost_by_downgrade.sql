-- What going back to revision 0002 loses, a line each.
WITH RECURSIVE numbered AS (
    SELECT '' AS address
    UNION ALL
    SELECT (
        SELECT m.address FROM {schema}.message AS m
        WHERE m.number IS NOT NULL AND m.address > numbered.address ORDER BY m.address LIMIT 1
    )
    FROM numbered WHERE numbered.address IS NOT NULL
),
worked AS (
    SELECT count(*) AS messages
    FROM (SELECT 'queue' || substr(n.address, 8) AS queue FROM numbered AS n WHERE starts_with(n.address, 'working:')) AS found
    CROSS JOIN LATERAL {schema}.open_work(found.queue)
),
waiting AS (
    SELECT count(*) FILTER (WHERE m.expires_at > clock_timestamp() + l.retention) AS lasting,
           count(*) FILTER (WHERE m.expires_at > clock_timestamp() + l.retention AND right(n.address, 5) = '.dead') AS dead
    FROM {schema}.log AS l, numbered AS n
    CROSS JOIN LATERAL (
        SELECT * FROM {schema}.message AS m
        WHERE m.address = n.address AND octet_length(m.payload) > 0 AND m.number > coalesce((
            SELECT c.number FROM {schema}.message AS c
            WHERE c.address = 'claimed' || substr(n.address, 6) AND c.number IS NOT NULL ORDER BY c.number DESC LIMIT 1
        ), 0)
    ) AS m
    WHERE starts_with(n.address, 'queue:')
)
SELECT format('messages under work, which go back to their queues and may be done twice: %s', messages)
FROM worked WHERE messages > 0
UNION ALL
SELECT format('messages in work queues that last for longer than the log, and leave with it: %s, dead letters among them: %s', lasting, dead)
FROM waiting WHERE lasting > 0
