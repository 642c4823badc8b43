-- Puts messages into the log and tells the nodes that host their addresses: the one road of every message.
-- Returns the id of the first message; each further one has the next id. At most 512 messages a call.
-- A call that repeats a batch whose outcome is unknown returns the ids of the first time, if there was one.
--
-- Many statements on purpose: each has a snapshot of its own, taken after the lock. A single statement's snapshot
-- is older than the lock that it waits for, and would not see a subscriber that it waited behind.
CREATE FUNCTION {schema}.deliver(
    this_batch bigint, addresses text[], channels text[], payloads bytea[], expiry_seconds double precision, repeated boolean
) RETURNS bigint
LANGUAGE plpgsql
-- Planned once, for tables of any size: index scans in nested loops. A plan a call would double the time of a call.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    first_id bigint;
    current_slot smallint;
    published timestamptz;
    copies_to text[];
    copies_of bigint[];
BEGIN
    IF EXISTS (SELECT FROM {schema}.member) THEN
        SELECT array_agg(m.queue ORDER BY sent.n), array_agg(sent.n ORDER BY sent.n) INTO copies_to, copies_of
        FROM unnest(addresses) WITH ORDINALITY AS sent (address, n) JOIN {schema}.member AS m ON m.topic = sent.address;
    END IF;
    PERFORM {schema}.lock_addresses(addresses || copies_to);

    IF repeated THEN
        SELECT m.id INTO first_id FROM {schema}.message AS m WHERE m.batch = this_batch;
        IF FOUND THEN
            RETURN first_id;
        END IF;
    END IF;

    SELECT slot INTO current_slot FROM {schema}.log_state;
    IF NOT FOUND THEN
        current_slot := {schema}.start_epoch();
    END IF;
    published := clock_timestamp();
    first_id := nextval('{schema}.message_id');

    INSERT INTO {schema}.message (slot, id, batch, address, channel, payload, published_at, expires_at)
    SELECT current_slot, first_id + n - 1, CASE WHEN n = 1 THEN this_batch END, address, channel, payload,
           published, published + make_interval(secs => expiry_seconds)
    FROM unnest(addresses, channels, payloads) WITH ORDINALITY AS sent (address, channel, payload, n);

    IF copies_to IS NOT NULL THEN
        -- A copy names its topic in place of a channel: a sealed payload opens only for the topic that it was sealed for.
        INSERT INTO {schema}.message (slot, id, address, channel, payload, published_at, expires_at)
        SELECT current_slot, nextval('{schema}.message_id'), queue, addresses[n], payloads[n],
               published, published + make_interval(secs => expiry_seconds)
        FROM unnest(copies_to, copies_of) AS copied (queue, n);
    END IF;

    PERFORM {schema}.notify_nodes(first_id, published, addresses, channels, payloads);
    IF copies_to IS NOT NULL THEN
        PERFORM {schema}.notify_nodes(0, published, copies_to, NULL, NULL);
    END IF;
    RETURN first_id;
END
$$
