-- Publishes to a topic when the transaction commits. Layers with this prefix receive it, as plain JSON.
-- `key` makes a retry harmless: while the log keeps a message to this topic with that key, another one is not delivered.
CREATE OR REPLACE FUNCTION {schema}.publish(
    topic text, payload jsonb, headers jsonb DEFAULT NULL, key text DEFAULT NULL, expiry interval DEFAULT NULL,
    prefix text DEFAULT 'asgi'
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER  -- for those who may only publish
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF length(key) NOT BETWEEN 1 AND 200 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('a key has 1 to 200 characters, not %s', length(key)),
            HINT = 'Take what names the message, such as ''order-7'', or a hash of that; NULL is no key.';
    END IF;
    PERFORM {schema}.enqueue(
        NULL, ARRAY[{schema}.topic_address(topic, prefix)], NULL, ARRAY[{schema}.plain_envelope(payload, headers)],
        NULL, CASE WHEN key IS NOT NULL THEN ARRAY[key] END, ARRAY[{schema}.expiry_of_message(expiry)]
    );
END
$$
