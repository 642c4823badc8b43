-- Returns the messages of a queue that are under work: each with its id, the slots of the message and of the row that
-- says so, until when it is so, and whether it is `abandoned`: that time has passed, or the lease of its node has ended.
-- A row `open:` says what was so when it was written: its channel is an array of the greatest number that had been taken
-- by then, and of those that were under work. So this reads what is new, and never again what was done before.
CREATE FUNCTION {schema}.open_work(queue text)
RETURNS TABLE (
    number bigint, id bigint, slot smallint, node_address text, most_attempts integer, visible_until timestamptz, is_abandoned boolean
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    works constant text := 'working' || substr(queue, 6);
    ends constant text := 'done' || substr(queue, 6);
    moment constant timestamptz := clock_timestamp();
    known bigint[];
BEGIN
    SELECT m.channel::bigint[] INTO known FROM {schema}.message AS m
    WHERE m.address = 'open' || substr(queue, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1;
    RETURN QUERY
        SELECT w.number, w.id, w.slot, w.channel, w.attempts, w.expires_at, w.expires_at <= moment OR NOT EXISTS (
            SELECT FROM {schema}.lease AS l WHERE l.address = w.channel AND l.leased_until > moment
        )
        FROM (
            SELECT found.* FROM unnest(known[2:]) AS listed (number)
            CROSS JOIN LATERAL (
                SELECT m.number, m.id, m.slot, m.channel, m.attempts, m.expires_at FROM {schema}.message AS m
                WHERE m.address = works AND m.number = listed.number LIMIT 1
            ) AS found
            UNION ALL
            SELECT m.number, m.id, m.slot, m.channel, m.attempts, m.expires_at FROM {schema}.message AS m
            WHERE m.address = works AND m.number > coalesce(known[1], 0)
        ) AS w
        WHERE NOT EXISTS (
            SELECT FROM {schema}.message AS e WHERE e.address = ends AND e.number = w.number AND e.id = w.id
        );
END
$$
