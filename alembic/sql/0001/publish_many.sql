-- Publishes payloads to topics in this order, as publish() does.
CREATE FUNCTION {schema}.publish_many(
    topics text[], payloads jsonb[], expiry interval DEFAULT NULL, prefix text DEFAULT 'asgi'
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER  -- for those who may only publish
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF cardinality(topics) <> cardinality(payloads) OR topics IS NULL OR payloads IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('there are %s topics and %s payloads', coalesce(cardinality(topics), 0), coalesce(cardinality(payloads), 0)),
            HINT = 'Give two arrays of the same length, a topic for each payload.';
    END IF;
    IF cardinality(topics) > 0 THEN
        PERFORM {schema}.enqueue(
            NULL,
            ARRAY(SELECT {schema}.topic_address(topic, prefix) FROM unnest(topics) WITH ORDINALITY AS sent (topic, n) ORDER BY n),
            NULL,
            ARRAY(SELECT {schema}.plain_envelope(payload, NULL) FROM unnest(payloads) WITH ORDINALITY AS sent (payload, n) ORDER BY n),
            NULL, NULL, array_fill({schema}.expiry_of_message(expiry), ARRAY[cardinality(topics)])
        );
    END IF;
END
$$
