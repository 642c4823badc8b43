-- Wakes as many nodes as there are new messages in a queue, of those that wait for one: each has left a token, and a row
-- `woken:` says which of the tokens are used up. Nodes that do not take turns are notified of every message: those of the
-- version before, and those that have not called yet. Who does not wait needs no word: it looks before it waits.
-- Runs under the lock on the queue.
CREATE FUNCTION {schema}.wake(queue text, most bigint, slot smallint) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    woken bigint;
    used bigint;
    count integer := 0;
    token record;
    waiting uuid;
BEGIN
    PERFORM pg_notify(s.node::text, 'q ' || queue) FROM {schema}.subscription AS s WHERE s.address = queue AND NOT s.takes_turns;
    SELECT m.number INTO woken FROM {schema}.message AS m
    WHERE m.address = 'woken' || substr(queue, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1;
    WHILE count < most LOOP
        SELECT m.number, m.channel INTO token FROM {schema}.message AS m
        WHERE m.address = 'idle' || substr(queue, 6) AND m.number > coalesce(used, woken, 0) ORDER BY m.number LIMIT 1;
        EXIT WHEN NOT FOUND;
        used := token.number;
        SELECT n.id INTO waiting FROM {schema}.node AS n WHERE n.name = token.channel;
        PERFORM pg_notify(s.node::text, 'q ' || queue) FROM {schema}.subscription AS s
        WHERE s.address = queue AND s.node = waiting;
        count := count + FOUND::integer;
    END LOOP;
    IF used IS NOT NULL THEN
        INSERT INTO {schema}.message (slot, id, address, number, payload, published_at, expires_at)
        VALUES (wake.slot, 0, 'woken' || substr(queue, 6), used, '', clock_timestamp(), clock_timestamp());
    END IF;
    RETURN count;
END
$$
