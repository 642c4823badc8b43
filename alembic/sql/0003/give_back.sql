-- Puts messages that were under work back, at the end of their queue, and wakes who waits for them. A failure is counted;
-- a message that has failed as often as it may goes to the queue's dead letters instead, a queue with its name and
-- `.dead`. Dead letters themselves are given back however often they fail. Each message can be received for as long as
-- when it was sent. What was not under work, or no longer is, stays as it is.
CREATE FUNCTION {schema}.give_back(queue text, numbers bigint[], ids bigint[], have_failed boolean[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dead constant text := queue || '.dead';
    works constant text := 'working' || substr(queue, 6);
    ends constant text := 'done' || substr(queue, 6);
    log record;
    returned record;
    to_queue text;
    number_there bigint;
    failures integer;
BEGIN
    log := {schema}.lock_addresses(ARRAY[queue, dead, 'claimed' || substr(queue, 6)]);
    FOR returned IN
        SELECT m.channel, m.attempts, m.payload, m.published_at, m.expires_at, given.number, given.id, has_failed,
               w.attempts AS most_attempts
        FROM unnest(numbers, ids, have_failed) WITH ORDINALITY AS given (number, id, has_failed, place)
        CROSS JOIN LATERAL (
            SELECT * FROM {schema}.message AS m WHERE m.address = works AND m.number = given.number AND m.id = given.id LIMIT 1
        ) AS w
        LEFT JOIN LATERAL (
            SELECT * FROM {schema}.message AS m WHERE m.address = queue AND m.number = given.number AND m.id = given.id LIMIT 1
        ) AS m ON true
        WHERE NOT EXISTS (
            SELECT FROM {schema}.message AS e WHERE e.address = ends AND e.number = given.number AND e.id = given.id
        )
        ORDER BY place
    LOOP
        INSERT INTO {schema}.message (slot, id, address, channel, number, payload, published_at, expires_at)
        VALUES (log.slot, returned.id, ends, 'given back', returned.number, '', clock_timestamp(), clock_timestamp());
        CONTINUE WHEN returned.payload IS NULL;  -- it has left the log
        failures := coalesce(returned.attempts, 0) + returned.has_failed::integer;
        to_queue := CASE WHEN returned.has_failed AND failures >= returned.most_attempts AND right(queue, 5) <> '.dead'
                         THEN dead ELSE queue END;
        number_there := ({schema}.number_queued(ARRAY[to_queue], ARRAY[2147483647], NULL))[1];
        -- A dead letter names its queue in place of a channel: a sealed payload opens only for the queue that it was sealed for.
        INSERT INTO {schema}.message (slot, id, address, channel, number, attempts, payload, published_at, expires_at)
        VALUES (log.slot, nextval('{schema}.message_id'), to_queue,
                CASE WHEN to_queue = dead THEN coalesce(returned.channel, queue) ELSE returned.channel END,
                number_there, nullif(failures, 0), returned.payload, clock_timestamp(),
                clock_timestamp() + (returned.expires_at - returned.published_at));
        PERFORM {schema}.wake(to_queue, 1, log.slot);
    END LOOP;
END
$$
