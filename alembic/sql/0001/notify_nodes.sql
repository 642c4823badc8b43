-- Tells each node that hosts one of the addresses: 'm id microseconds address channel payload' for a message,
-- 'q address' for a queue that has something to claim. A payload that does not fit stays away: the node reads it by id.
-- Those that were refused are left out.
-- PostgreSQL takes less than 8000 bytes a notification, and folds identical ones of a transaction, here those of a queue.
CREATE FUNCTION {schema}.notify_nodes(
    first_id bigint, published timestamptz, addresses text[], channels text[], payloads bytea[], refused integer[]
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    microseconds text := (extract(epoch FROM published) * 1000000)::bigint::text;
BEGIN
    PERFORM pg_notify(node::text, CASE WHEN octet_length(head) + octet_length(body) < 8000 THEN head || body ELSE head END)
    FROM (
        SELECT s.node,
               CASE WHEN starts_with(address, 'queue:') THEN 'q ' || address
                    ELSE 'm ' || (first_id + n - 1) || ' ' || microseconds || ' ' || address || ' ' || coalesce(channel, '') || ' '
               END AS head,
               CASE WHEN starts_with(address, 'queue:') OR octet_length(payload) > 6000 THEN ''
                    ELSE encode(payload, 'base64')
               END AS body
        FROM unnest(addresses, channels, payloads) WITH ORDINALITY AS sent (address, channel, payload, n)
        JOIN {schema}.subscription AS s USING (address)
        WHERE refused IS NULL OR n <> ALL (refused)
        ORDER BY n
        OFFSET 0
    ) AS notification;
END
$$
