-- Sends to a channel or, without a '!' in its name, to a work queue, when the transaction commits. The commit fails if
-- `capacity` messages are waiting in the queue, or the channel is full. A queue keeps a message for as long as its expiry
-- says, longer than the log if need be.
CREATE OR REPLACE FUNCTION {schema}.send(
    channel text, payload jsonb, headers jsonb DEFAULT NULL, expiry interval DEFAULT NULL, capacity integer DEFAULT 1000,
    prefix text DEFAULT 'asgi'
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER  -- for those who may only publish
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_queue constant boolean := strpos(channel, '!') = 0;
    node constant text := reverse(split_part(reverse(split_part(channel, '!', 1)), '.', 1));
BEGIN
    IF (channel ~ '^[a-zA-Z0-9_.-]+(![a-zA-Z0-9_.-]*)?$' AND length(channel) <= 99) IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('%s is no channel', coalesce(quote_literal(left(channel, 100)), 'NULL')),
            HINT = 'A channel has 1 to 99 ASCII letters, digits and ''-_.'', with at most one ''!'' after the first of them.';
    END IF;
    IF (capacity > 0) IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the capacity of %s is impossible: it is a number from 1 on', coalesce(capacity::text, 'NULL')),
            HINT = 'It says how many messages may wait there; leave it out for 1000.';
    END IF;
    IF is_queue AND expiry > '3650 days' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the expiry of %s is impossible', expiry),
            HINT = 'It is at least one millisecond and at most 3650 days.';
    END IF;
    PERFORM {schema}.topic_address('-', prefix);
    PERFORM {schema}.enqueue(
        NULL, ARRAY[CASE WHEN is_queue THEN 'queue:' || prefix || ':' || channel ELSE 'node:' || prefix || ':' || node END],
        CASE WHEN NOT is_queue THEN ARRAY[channel] END, ARRAY[{schema}.plain_envelope(payload, headers)],
        ARRAY[capacity], NULL, ARRAY[CASE WHEN is_queue AND expiry >= '1 ms' THEN extract(epoch FROM expiry) ELSE {schema}.expiry_of_message(expiry) END]
    );
END
$$
