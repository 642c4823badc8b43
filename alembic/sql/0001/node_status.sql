-- For people: the nodes, by their names. Their ids, the secrets that they listen on, stay in `node`.
CREATE VIEW {schema}.node_status AS
SELECT
    n.name,
    (
        SELECT min(split_part(s.address, ':', 2)) FROM {schema}.subscription AS s
        WHERE s.node = n.id AND starts_with(s.address, 'node:')
    ) AS prefix,
    n.host,
    n.process_id,
    n.process,
    n.leased_until > clock_timestamp() AS is_alive,
    n.leased_until,
    (SELECT count(*) FROM {schema}.subscription AS s WHERE s.node = n.id AND starts_with(s.address, 'topic:')) AS groups,
    (SELECT count(*) FROM {schema}.subscription AS s WHERE s.node = n.id AND starts_with(s.address, 'queue:')) AS queues,
    (SELECT count(*) FROM {schema}.full_channel AS f WHERE f.node = n.id) AS full_channels
FROM {schema}.node AS n
