-- For people: the topics that have subscribers, or queues that get copies.
CREATE VIEW {schema}.group_status AS
WITH hosted AS (
    SELECT s.address, count(*) AS nodes FROM {schema}.subscription AS s WHERE starts_with(s.address, 'topic:') GROUP BY s.address
), copied AS (
    SELECT m.topic AS address, count(*) AS queues FROM {schema}.member AS m
    WHERE m.expires_at IS NULL OR m.expires_at > clock_timestamp() GROUP BY m.topic
)
SELECT
    address,
    split_part(address, ':', 2) AS prefix,
    substring(address FROM '^[^:]*:[^:]*:(.*)$') AS name,
    coalesce(hosted.nodes, 0) AS nodes,
    coalesce(copied.queues, 0) AS queues,
    (
        SELECT m.published_at FROM {schema}.message AS m WHERE m.address = coalesce(hosted.address, copied.address)
        ORDER BY m.id DESC LIMIT 1
    ) AS last_message_at
FROM hosted FULL JOIN copied USING (address)
