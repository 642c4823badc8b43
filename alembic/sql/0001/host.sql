-- Subscribes a node to addresses. Returns a position: messages with a greater id are told to the node from now on,
-- and every message that was there before has a lesser id or this one. Ids come in blocks of 512.
CREATE FUNCTION {schema}.host(hosting_node uuid, addresses text[]) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.lock_addresses(addresses);
    IF NOT EXISTS (SELECT FROM {schema}.log_state) THEN
        PERFORM {schema}.start_epoch();
    END IF;
    INSERT INTO {schema}.subscription (address, node)
    SELECT DISTINCT address, hosting_node FROM unnest(addresses) AS address
    ON CONFLICT DO NOTHING;
    RETURN (SELECT last_value + 511 FROM {schema}.message_id);
END
$$
