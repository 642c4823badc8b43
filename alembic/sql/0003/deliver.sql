-- Puts messages into the log and notifies the nodes that host their addresses. Every message takes this path.
-- Message n gets the id `first_id` + n - 1. A call takes at most 512 messages. `refused` lists those to a full channel
-- or queue, by their n; `dropped` counts the copies that full queues in a topic did not get. `capacities` has a figure
-- for each message to a queue, and for one to a channel unless the caller knows that it has room; without any figure,
-- it is NULL. `channels` may be NULL, too; for a message to a topic, it is the channel that does not get the message.
-- `keys` and `expiries` belong to single messages, or are NULL; a negative expiry is that of the message's layer. A message
-- with an expiry of its own is not replayed after it. While the log has a message to a topic with a key, another
-- one with that key is left out: `repeated` has the id of the first one in its place, and NULL for all others.
--
-- A call that repeats a batch whose outcome is unknown returns what the first one did, if it was committed: the batch's
-- number is on its first message or, if not all were taken, on a row of its own that says which were refused.
-- A first call need not look for its number: `known_until` is an id that its caller had seen before. While that is in
-- the current slot, another call with this number can be nowhere else, and the index on numbers refuses a second one.
--
-- A notification reads 'm microseconds address', then ' id channel payload' for each message of a part, or 'q address'
-- for a queue that has something to claim, to as many nodes as there are messages: see wake(). Messages with an expiry of their own have 'microseconds/microseconds', the
-- second for how long they can be received. A part is consecutive messages to one address with one expiry that take less
-- than 8000 bytes together; payloads of more than 5500 bytes are left out, and the node reads them by their ids. `parts`
-- has, for the first message of each part, the n of its last, and 0 for the others; NULL means that each message is a part.
-- PostgreSQL allows less than 8000 bytes per notification, and merges identical ones of a transaction, as of a queue.
--
-- There are many statements on purpose: each has a snapshot of its own, taken after the lock. A single statement's
-- snapshot is older than the lock that it waits for, and would not see a subscriber that it waited behind.
-- Each costs some microseconds, though, so functions are called in assignments, which are no statements.
CREATE OR REPLACE FUNCTION {schema}.deliver(
    this_batch bigint, valid_until double precision, addresses text[], channels text[], payloads bytea[],
    capacities integer[], parts integer[], expiry_seconds double precision, known_until bigint DEFAULT 0,
    keys text[] DEFAULT NULL, expiries double precision[] DEFAULT NULL,
    OUT first_id bigint, OUT refused integer[], OUT dropped integer, OUT repeated bigint[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    log record;
    published timestamptz;
    head text;
    copies_to text[];
    copies_of integer[];
    copies_capacity integer[];
    copies_numbers bigint[];
    numbers bigint[];
    left_out integer[];
    is_whole boolean := true;
    woken integer;
BEGIN
    IF EXISTS (SELECT FROM {schema}.member) THEN
        SELECT array_agg(m.queue), array_agg(n), array_agg(m.capacity) INTO copies_to, copies_of, copies_capacity
        FROM unnest(addresses) WITH ORDINALITY AS sent (address, n)
        -- OFFSET 0 keeps this a lookup per address: a join could read the whole table.
        CROSS JOIN LATERAL (SELECT queue, capacity, expires_at FROM {schema}.member WHERE topic = sent.address OFFSET 0) AS m
        WHERE (m.expires_at IS NULL OR m.expires_at > clock_timestamp())
          AND m.queue IS DISTINCT FROM 'queue:' || split_part(sent.address, ':', 2) || ':' || channels[n];
    END IF;
    log := {schema}.lock_addresses(addresses || copies_to);

    IF known_until <= log.filled_until THEN
        SELECT m.id, CASE WHEN m.address = 'outcome:' THEN m.channel::integer[] END, CASE WHEN m.address = 'outcome:' THEN m.number END
        INTO first_id, refused, dropped FROM {schema}.message AS m WHERE m.batch = this_batch;
        IF FOUND THEN
            repeated := CASE WHEN keys IS NOT NULL THEN {schema}.ids_of_keys(addresses, keys, NULL) END;
            RETURN;
        END IF;
    END IF;
    published := clock_timestamp();
    IF extract(epoch FROM published) > valid_until THEN
        PERFORM {schema}.refuse_late_call();
    END IF;

    IF keys IS NOT NULL THEN
        first_id := nextval('{schema}.message_id');
        repeated := {schema}.ids_of_keys(addresses, keys, first_id);
        left_out := ARRAY(SELECT n FROM unnest(repeated) WITH ORDINALITY AS found (id, n) WHERE id IS NOT NULL);
        SELECT array_agg(queue), array_agg(of), array_agg(capacity) INTO copies_to, copies_of, copies_capacity
        FROM unnest(copies_to, copies_of, copies_capacity) AS copied (queue, of, capacity) WHERE of <> ALL (left_out);
    END IF;
    IF capacities IS NOT NULL OR copies_to IS NOT NULL THEN
        IF copies_to IS NULL THEN
            numbers := {schema}.number_queued(addresses, capacities, NULL);
        ELSE
            -- One order for all: what is sent first is received first, whether sent to the queue or to its topic.
            numbers := {schema}.number_queued(
                addresses || copies_to,
                coalesce(capacities, array_fill(NULL::integer, ARRAY[cardinality(addresses)])) || copies_capacity,
                ARRAY(SELECT generate_series(1, cardinality(addresses))) || copies_of
            );
            copies_numbers := numbers[cardinality(addresses) + 1 :];
            dropped := cardinality(array_positions(copies_numbers, NULL));
            numbers := numbers[1 : cardinality(addresses)];
        END IF;
        -- If all have a number, none was sent to a channel, and no queue is full.
        IF array_position(numbers, NULL) IS NOT NULL THEN
            refused := ARRAY(
                SELECT n
                FROM unnest(addresses, channels, capacities, numbers)
                    WITH ORDINALITY AS sent (address, channel, capacity, number, n)
                WHERE starts_with(address, 'queue:') AND number IS NULL
                   OR capacity IS NOT NULL AND EXISTS (
                        SELECT FROM {schema}.full_channel AS f
                        WHERE f.channel IN (sent.channel, split_part(sent.channel, '!', 1) || '!')
                   )
            );
        END IF;
        left_out := left_out || refused;
        is_whole := coalesce(dropped, 0) = 0;
    END IF;
    is_whole := is_whole AND coalesce(cardinality(left_out), 0) = 0;

    first_id := coalesce(first_id, nextval('{schema}.message_id'));
    IF NOT is_whole AND this_batch IS NOT NULL THEN
        INSERT INTO {schema}.message (slot, id, batch, address, channel, number, payload, published_at, expires_at)
        VALUES (log.slot, first_id, this_batch, 'outcome:', refused::text, dropped, '', published, published);
    END IF;
    INSERT INTO {schema}.message (slot, id, batch, address, channel, number, key, payload, published_at, expires_at,
         has_own_expiry)
    SELECT log.slot, first_id + n - 1, CASE WHEN n = 1 AND is_whole THEN this_batch END, addresses[n], channels[n], numbers[n],
           keys[n], payloads[n], published, published + make_interval(secs => coalesce(abs(expiries[n]), expiry_seconds)),
           nullif(expiries[n] > 0, false)
    FROM generate_series(1, cardinality(addresses)) AS n
    WHERE left_out IS NULL OR n <> ALL (left_out);

    head := 'm ' || (extract(epoch FROM published) * 1000000)::bigint;
    IF numbers IS NOT NULL AND cardinality(addresses) = 1 AND copies_to IS NULL THEN
        IF numbers[1] IS NOT NULL THEN
            woken := {schema}.wake(addresses[1], 1, log.slot);
            RETURN;
        END IF;
    END IF;
    IF cardinality(addresses) = 1 AND coalesce(cardinality(left_out), 0) = 0 THEN
        head := head || coalesce('/' || (abs(expiries[1]) * 1000000)::bigint, '') || ' ' || addresses[1] || {schema}.told(first_id, channels[1], payloads[1]);
        PERFORM pg_notify(s.node::text, head) FROM {schema}.subscription AS s WHERE s.address = addresses[1];
    ELSE
        PERFORM pg_notify(s.node::text, told.text)
        FROM (
            SELECT addresses[n] AS address,
                   head || coalesce('/' || (abs(expiries[n]) * 1000000)::bigint, '') || ' ' || addresses[n] || (
                       SELECT string_agg({schema}.told(first_id + m - 1, channels[m], payloads[m]), '' ORDER BY m)
                       FROM generate_series(n, coalesce(parts[n], n)) AS m WHERE left_out IS NULL OR m <> ALL (left_out)
                   ) AS text
            FROM generate_series(1, cardinality(addresses)) AS n
            WHERE coalesce(parts[n], n) >= n AND NOT starts_with(addresses[n], 'queue:')
              AND (left_out IS NULL OR NOT left_out @> ARRAY(SELECT generate_series(n, coalesce(parts[n], n))))
            OFFSET 0  -- once for all nodes
        ) AS told
        -- OFFSET 0 keeps this a lookup per address: a join could read the whole table.
        CROSS JOIN LATERAL (SELECT node FROM {schema}.subscription AS hosted WHERE hosted.address = told.address OFFSET 0) AS s;
    END IF;

    IF copies_to IS NOT NULL THEN
        -- A copy names its topic in place of a channel: a sealed payload opens only for the topic that it was sealed for.
        INSERT INTO {schema}.message (slot, id, address, channel, number, payload, published_at, expires_at)
        SELECT log.slot, nextval('{schema}.message_id'), queue, concat_ws(' ', addresses[of], channels[of]), number, payloads[of],
               published, published + make_interval(secs => coalesce(abs(expiries[of]), expiry_seconds))
        FROM unnest(copies_to, copies_of, copies_numbers) AS copied (queue, of, number)
        WHERE number IS NOT NULL;
    END IF;
    IF numbers IS NOT NULL THEN
        PERFORM {schema}.wake(numbered.address, count(*), log.slot)
        FROM unnest(addresses || copies_to, numbers || copies_numbers) AS numbered (address, number)
        WHERE number IS NOT NULL GROUP BY address ORDER BY address;
    END IF;
END
$$
