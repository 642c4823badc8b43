-- Tells each node that hosts one of the addresses: 'm microseconds address', then ' id channel payload' for each message
-- of a part, or 'q address' for a queue that has something to claim.
-- Messages with the same figure in `parts` are consecutive ones to one address and take less than 8000 bytes together,
-- payloads of more than 5500 bytes left out: these the node reads by their ids. Those that were refused are not told.
-- PostgreSQL takes less than 8000 bytes a notification, and folds identical ones of a transaction, here those of a queue.
CREATE FUNCTION {schema}.notify_nodes(
    first_id bigint, published timestamptz, addresses text[], channels text[], payloads bytea[], parts integer[], refused integer[]
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    head text := 'm ' || (extract(epoch FROM published) * 1000000)::bigint || ' ';
BEGIN
    PERFORM pg_notify(s.node::text, told.text)
    FROM (
        SELECT min(n) AS n, address, CASE
                WHEN starts_with(address, 'queue:') THEN 'q ' || address
                ELSE head || address || string_agg(
                    ' ' || (first_id + n - 1) || ' ' || coalesce(channel, '') || ' ' ||
                    CASE WHEN octet_length(payload) > 5500 THEN '' ELSE encode(payload, 'base64') END,
                    '' ORDER BY n
                )
            END AS text
        FROM unnest(addresses, channels, payloads, parts) WITH ORDINALITY AS sent (address, channel, payload, part, n)
        WHERE refused IS NULL OR n <> ALL (refused)
        GROUP BY address, coalesce(part, n)
    ) AS told
    -- OFFSET 0 keeps it a look-up for each address: a join could read the whole table.
    CROSS JOIN LATERAL (SELECT node FROM {schema}.subscription AS hosted WHERE hosted.address = told.address OFFSET 0) AS s
    ORDER BY told.n;
END
$$
